//! A selection or an option that changes nothing is reported, whichever it is.

use std::fs;

use safetensors::Dtype;
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::command::{self, ckptfs, text};
use crate::common::{Workspace, assert_names};

/// `base` (BF16), `fp8` (the same in block FP8), `extra` (a tensor of the base), `reference` (another
/// model in FP8), and two adapters.
fn sources() -> Workspace {
    let workspace = Workspace::new();
    let q_proj = "model.layers.0.self_attn.q_proj.weight";
    let norm = || bf16("model.norm.weight", &[128]);
    let in_fp8 = |name: &str| {
        [
            tensor(name, Dtype::F8_E4M3, &[128, 128], 1),
            tensor(&format!("{name}_scale_inv"), Dtype::F32, &[1, 1], 1),
        ]
    };
    workspace.write(
        "base",
        &Checkpoint::single([bf16(q_proj, &[128, 128]), norm()]),
    );
    let [codes, scales] = in_fp8(q_proj);
    let declared =
        json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}});
    let fp8 = Checkpoint::single([codes, scales, norm()]).aux("config.json", declared.to_string());
    workspace.write("fp8", &fp8);
    workspace.write("extra", &Checkpoint::single([norm()]));
    workspace.write("reference", &Checkpoint::single(in_fp8("other.weight")));
    let small = bf16("model.layers.0.self_attn.q_proj.weight", &[100, 100]);
    workspace.write("partial", &Checkpoint::single([small]));
    let prefix = "base_model.model.model.layers.0.self_attn.q_proj";
    let factors = [
        bf16(&format!("{prefix}.lora_A.weight"), &[1, 128]),
        bf16(&format!("{prefix}.lora_B.weight"), &[128, 1]),
    ];
    workspace.write("factors", &Checkpoint::single(factors));
    let adapter = workspace.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    let config =
        json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]});
    fs::write(adapter.join("adapter_config.json"), config.to_string()).unwrap();
    fs::rename(
        workspace.path().join("factors/model.safetensors"),
        adapter.join("adapter_model.safetensors"),
    )
    .unwrap();
    fs::write(workspace.path().join("recipe.yml"), "base: base\n").unwrap();
    workspace
}

fn warnings(workspace: &Workspace, flags: &str) -> Vec<String> {
    let plan = command::stdout(workspace, &format!("plan {flags}"));
    let lines = plan.lines().filter(|line| line.starts_with("warning["));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_option_without_effect_is_warned_of_and_named() {
    let workspace = sources();
    for (flags, parts) in [
        (
            "--base base --only .*",
            &["--only", "keeps every tensor"][..],
        ),
        (
            "--base base --only .* --only x",
            &["--only x: it matches no tensor name"],
        ),
        (
            "--base fp8 --only model.norm.* --only .*_scale_inv",
            &["--only .*_scale_inv: ", "scales"],
        ),
        (
            "--base base --drop x",
            &["--drop x: it matches no tensor name"],
        ),
        (
            "--base base --only .*norm.* --drop .*q_proj.*",
            &["--drop .*q_proj.*", "no effect"],
        ),
        (
            "--base base --rename x=y",
            &["--rename x=y: it matches no tensor name"],
        ),
        (
            "--base base --rename norm=norm",
            &["--rename norm=norm", "no effect"],
        ),
        (
            "--base base --extra extra",
            &["--extra", "/extra: nothing is added"],
        ),
        ("--base base --lora adapter:0", &["adapter", "weight is 0"]),
        ("--base base --dtype bf16", &["--dtype", "BF16 already"]),
        (
            "--base base --unfuse-experts",
            &["--unfuse-experts: it has no effect"],
        ),
        (
            "--base base --fuse-experts",
            &["--fuse-experts: it has no effect"],
        ),
        (
            "--base fp8 --fp8",
            &[
                "--fp8: it quantizes nothing",
                "quantized already",
                "--dtype bf16",
            ],
        ),
        (
            "--base extra --fp8",
            &["--fp8: it quantizes nothing", "rules"],
        ),
        (
            "--base base --fp8 --fp8-pattern x",
            &["--quantize-pattern x", "matches no tensor name"],
        ),
        (
            "--base fp8 --fp8-pattern .*q_proj.weight",
            &["--quantize-pattern .*q_proj.weight", "already"],
        ),
        (
            "--base fp8 --reference fp8",
            &["--reference", "/fp8: it quantizes nothing", "already"],
        ),
        (
            "--base base --fp8 --reference reference",
            &["--reference", "/reference: it quantizes nothing"],
        ),
        (
            "--base partial --fp8 --partial-blocks keep",
            &["--fp8: it quantizes nothing", "partial blocks"],
        ),
        (
            "--base base --shard-size-gb 1",
            &["--shard-size: it has no effect", "use --shards repack"],
        ),
        (
            "--recipe recipe.yml --model other=base",
            &["recipe.yml", "called other"],
        ),
    ] {
        let warnings = warnings(&workspace, flags);
        let found = warnings
            .iter()
            .any(|warning| parts.iter().all(|part| warning.contains(part)));
        assert!(found, "{flags}: {warnings:?}");
    }
}

#[test]
fn what_has_an_effect_is_not_warned_of() {
    let workspace = sources();
    fs::write(
        workspace.path().join("models.yml"),
        "base: org/name\nview: {models: {org/name: base}}\n",
    )
    .unwrap();
    for flags in [
        "--base base --only .*norm.*",
        "--base base --only .* --drop .*norm.*",
        "--base base --rename norm=ln",
        "--base base --lora adapter",
        "--base fp8 --dtype bf16",
        // What an adapter is merged into was dequantized before it.
        "--base fp8 --dtype bf16 --lora adapter",
        "--base fp8 --dtype bf16 --fp8",
        "--base base --fp8",
        "--base base --fp8-pattern .*q_proj.weight",
        "--base base --repack --shard-size-gb 1",
        "--recipe recipe.yml --model base=extra",
        "--recipe models.yml",
    ] {
        assert_eq!(warnings(&workspace, flags), [""; 0], "{flags}");
    }
}

#[test]
fn a_pattern_is_suggested_only_if_it_matches_a_name() {
    let workspace = sources();
    for (pattern, suggested) in [
        ("layers.0", r"did you mean .*layers\.0\..*?"),
        ("q_proj", r"did you mean .*q_proj\..*?"),
        ("q_proj.weight", r"did you mean .*q_proj\.weight?"),
        ("laye", "did you mean .*laye.*?"),
        (r"^layers\.[0-9]$", r"did you mean .*layers\.[0-9]\..*?"),
        ("norm|x", r"did you mean .*(?:norm|x)\..*?"),
        ("layers.1", "nor a part of one"),
    ] {
        for flag in ["--drop", "--fp8 --fp8-pattern"] {
            let warnings = warnings(&workspace, &format!("--base base {flag} {pattern}"));
            assert_names(&warnings.join("\n"), &[pattern, suggested]);
        }
        // Where nothing is left it is an error, which says the same.
        let output = ckptfs(&workspace, &format!("plan --base base --only {pattern}"));
        assert_eq!(output.status.code(), Some(1));
        assert_names(
            text(&output.stderr),
            &["leave nothing", "2 tensors", pattern, suggested],
        );
    }
}

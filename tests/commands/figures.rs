//! The figures of a view, which `plan`, its JSON and `report` show, and the form of the plan's text.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::command;
use crate::common::{Workspace, assert_names};
use crate::plan::{ckptfs_plan, sources, stdout};

/// The data of the page that `report` with `flags` writes.
fn report(workspace: &Workspace, flags: &str) -> Value {
    command::stdout(
        workspace,
        &format!("report {flags} --out page.html --force"),
    );
    let page = fs::read_to_string(workspace.path().join("page.html")).unwrap();
    let (_, data) = page.split_once(r#"id="data">"#).unwrap();
    serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn every_tensor_is_counted_once_and_alike_in_plan_json_and_report() {
    let workspace = Workspace::new();
    let base = Checkpoint::single([
        bf16("model.layers.0.self_attn.o_proj.weight", &[128, 128]),
        bf16("model.norm.weight", &[128]),
        tensor(
            "model.layers.0.mlp.down_proj.weight",
            Dtype::F32,
            &[128, 128],
            1,
        ),
        tensor("position", Dtype::I64, &[4], 1),
        tensor("bias", Dtype::F16, &[4], 1),
        bf16("unused", &[4]),
    ]);
    let fused = Checkpoint::single([
        bf16("model.layers.0.mlp.experts.gate_up_proj", &[2, 256, 256]),
        bf16("model.layers.0.mlp.experts.down_proj", &[2, 256, 128]),
        bf16("mtp.norm.weight", &[128]),
    ]);
    workspace.write("base", &base);
    workspace.write("fused", &fused);
    let flags = "--base base --extra fused --rename norm=ln --drop unused --dtype bf16 \
                 --unfuse-experts --fp8-pattern .*(down_proj|o_proj|experts).*";
    let json: Value =
        serde_json::from_str(&stdout(&workspace, &format!("{flags} --json"))).unwrap();
    let weight = 128 * 128;
    let count = |tensors: usize, bytes: usize| json!({"tensors": tensors, "bytes": bytes});
    let changed = |operators: &[&str], tensors: usize, bytes: usize| json!({"operators": operators, "tensors": tensors, "bytes": bytes});
    let counts = &json["counts"];
    // The norm and the positions are whole tensors of the base, one of them by another name.
    assert_eq!(counts["kept"], count(2, 256 + 32));
    assert_eq!(counts["added"], count(1, 256));
    let by = [
        changed(&["fp8"], 1, weight),
        changed(&["cast", "fp8"], 1, weight),
        changed(&["cast"], 1, 8),
        changed(&["slice", "fp8"], 6, 12 * weight),
    ];
    let found: HashMap<String, &Value> = counts["changed_by"]
        .as_array()
        .unwrap()
        .iter()
        .map(|by| (by["operators"].to_string(), by))
        .collect();
    assert_eq!(found.len(), by.len());
    for by in &by {
        assert_eq!(found[&by["operators"].to_string()], by);
    }
    assert_eq!(counts["changed"], count(9, 14 * weight + 8));
    assert_eq!(counts["scales"], count(8, 4 + 4 + 6 * 8));
    let after = 256 + 32 + 256 + 14 * weight + 8 + 56;
    assert_eq!(counts["total"], count(20, after));
    let of_base = 2 * weight + 256 + 4 * weight + 32 + 8 + 8;
    assert_eq!(counts["before"], count(9, of_base + 24 * weight + 256));
    assert_eq!(json["tensors"], 20);
    assert_eq!(json["kept"], 2);

    let plan = stdout(&workspace, flags);
    let line = plan.lines().find(|line| line.starts_with("view ")).unwrap();
    assert_names(
        line,
        &[
            "20 tensors: 2 kept, 1 added, 9 changed (",
            "1 cast → fp8",
            "6 slice → fp8",
            "), 8 scales",
        ],
    );
    let bytes = plan
        .lines()
        .find(|line| line.starts_with("bytes "))
        .unwrap();
    assert_names(bytes, &["480.55 KiB → 224.59 KiB"]);
    let summary = stdout(&workspace, &format!("{flags} --summary"));
    assert!(plan.ends_with(&format!("\n\n{summary}")), "{plan}");
    let page = report(&workspace, flags);
    assert_eq!(page["counts"], *counts);
    let of_fate = |fate: usize| {
        let fates = page["tensors"]["fate"].as_array().unwrap().iter();
        fates.filter(|of| **of == json!(fate)).count()
    };
    assert_eq!([0, 1, 2, 3, 4].map(of_fate), [2, 1, 0, 9, 8]);
}

#[test]
fn a_tensor_that_an_adapter_has_as_a_whole_is_changed_by_it() {
    let workspace = Workspace::new();
    let head = || bf16("lm_head.weight", &[8, 4]);
    workspace.write(
        "base",
        &Checkpoint::single([head(), bf16("norm.weight", &[4])]),
    );
    let directory = workspace.path().join("adapter");
    fs::create_dir(&directory).unwrap();
    let config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["x"], "modules_to_save": ["lm_head"]});
    fs::write(directory.join("adapter_config.json"), config.to_string()).unwrap();
    workspace.write(
        "saved",
        &Checkpoint::single([bf16("base_model.model.lm_head.weight", &[8, 4])]),
    );
    fs::rename(
        workspace.path().join("saved/model.safetensors"),
        directory.join("adapter_model.safetensors"),
    )
    .unwrap();
    let json = stdout(&workspace, "--base base --lora adapter --json");
    let counts = &serde_json::from_str::<Value>(&json).unwrap()["counts"];
    assert_eq!(counts["kept"]["tensors"], 1);
    assert_eq!(
        counts["changed_by"],
        json!([{"operators": ["lora"], "tensors": 1, "bytes": 64}])
    );
}

#[test]
fn one_is_not_many() {
    let workspace = Workspace::new();
    let base = Checkpoint::single([bf16("norm.weight", &[4])]).aux("config.json", "{}");
    workspace.write("base", &base);
    let plan = stdout(&workspace, "--base base");
    let shown = [
        "1 tensor of",
        "1 tensor: 1 kept",
        "1 shard of",
        "2 other files of",
    ];
    assert_names(&plan, &shown);
    fs::remove_file(workspace.path().join("base/config.json")).unwrap();
    assert_names(&stdout(&workspace, "--base base"), &["1 other file of"]);
    assert_names(
        &command::stdout(&workspace, "verify base"),
        &["1 tensor of", "in 1 shard\n"],
    );
    let written = command::stdout(&workspace, "materialize --base base --out out");
    assert_names(&written, &["2 files,"]);
}

#[test]
fn the_summary_is_last_and_can_be_all() {
    let workspace = sources();
    let flags = "--base base --extra extra --fp8";
    let plan = stdout(&workspace, flags);
    let summary = stdout(&workspace, &format!("{flags} --summary"));
    assert!(plan.ends_with(&format!("\n\n{summary}")), "{plan}");
    assert!(summary.starts_with("base   "), "{summary}");
    let with_json = ckptfs_plan(&workspace, &format!("{flags} --summary --json"));
    assert_eq!(with_json.status.code(), Some(2));
}

#[test]
fn scales_are_on_the_line_of_their_weights() {
    let workspace = sources();
    let plan = stdout(&workspace, "--base base --extra extra --fp8");
    let line = plan.lines().find(|line| line.contains("o_proj.weight"));
    assert_names(
        line.unwrap(),
        &[
            "{0..1}",
            "2 × F8_E4M3 [130, 140], scales F32 [2, 2]",
            "35.58 KiB",
        ],
    );
    let lines = plan.lines().filter(|line| line.contains(" × "));
    assert_eq!(lines.count(), 5, "{plan}");
    // Scales without their weight have a line of their own.
    let alone = tensor("a_scale_inv", Dtype::F32, &[1, 1], 1);
    workspace.write("alone", &Checkpoint::single([alone, bf16("b", &[2, 2])]));
    let plan = stdout(&workspace, "--base alone");
    assert_names(
        &plan,
        &["a_scale_inv  1 × F32 [1, 1]", "\nb  1 × BF16 [2, 2]"],
    );
}

#[test]
fn many_shards_of_one_kind_are_a_line() {
    let workspace = Workspace::new();
    let layers =
        (0..20).map(|i| bf16(&format!("model.layers.{i}.mlp.up_proj.weight"), &[128, 128]));
    let norms = (0..6).map(|i| bf16(&format!("model.layers.{i}.norm.weight"), &[2 << 13]));
    workspace.write("base", &Checkpoint::single(layers.chain(norms)));
    // 2^-15 GiB are 32 KiB: a norm, or the codes and scales of one weight (with room for no second).
    let flags = "--base base --fp8 --repack --shard-size-gb 0.000030517578125";
    let plan = stdout(&workspace, flags);
    let lines: Vec<&str> = plan
        .lines()
        .filter(|line| line.starts_with("model-"))
        .collect();
    assert_eq!(
        lines,
        [
            "model-{00001..00020}-of-00026.safetensors  20 × 20.00 KiB  computed",
            "model-{00021..00026}-of-00026.safetensors  6 × 36.00 KiB  put together",
        ]
    );
    // As they are, whole source files are said to be so, few of them each on a line.
    let shards = |count: usize| {
        let mut base = Checkpoint::new();
        for i in 0..count {
            let name = format!("shard_{i}.safetensors");
            base = base.shard(&name, [bf16(&format!("t{i}"), &[1 + i])]);
        }
        base
    };
    workspace.write("few", &shards(4));
    workspace.write("many", &shards(11));
    let few = stdout(&workspace, "--base few --no-repack");
    assert_eq!(few.matches("  = ").count(), 4 + 1, "{few}");
    let many = stdout(&workspace, "--base many --no-repack");
    let line = many.lines().find(|line| line.starts_with("shard_"));
    assert_names(
        line.unwrap(),
        &["shard_{0..10}.safetensors  11 × ", "= files of ", "/many"],
    );
}

#[test]
fn links_out_of_the_sources_are_counted_with_their_bytes() {
    let workspace = sources();
    let at = |name: &str| workspace.path().join(name);
    assert!(!stdout(&workspace, "--base base").contains("\nlinks  "));
    fs::write(at("elsewhere"), "x".repeat(2048)).unwrap();
    symlink(at("elsewhere"), at("base/link.json")).unwrap();
    symlink(at("base/tokenizer.json"), at("base/inside.json")).unwrap();
    let plan = stdout(&workspace, "--base base");
    assert_names(&plan, &["\nlinks  1 file of 2.00 KiB", "--follow-symlinks"]);
    let json: Value = serde_json::from_str(&stdout(&workspace, "--base base --json")).unwrap();
    assert_eq!(json["links_out"], json!({"files": 1, "bytes": 2048}));
    // A directory that another source is in may be shared with it.
    let extra = stdout(&workspace, "--base base --extra extra");
    assert_names(&extra, &["\nlinks  1 file of 2.00 KiB"]);
}

//! The `ckptfs plan` command: its output, its exit codes, and where it writes.

use std::path::Path;
use std::process::{Command, Output};

use ckptfs::named::Named;
use ckptfs::ops::{PartialBlocks, QuantizeParams};
use ckptfs::provenance::Counts;
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::recipe::{Plan, Shards, ViewRequest};
use safetensors::Dtype;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::command::{self, ckptfs, text};
use crate::common::{Workspace, assert_names};
use crate::directory::files;

pub(crate) fn ckptfs_plan(workspace: &Workspace, flags: &str) -> Output {
    ckptfs(workspace, &format!("plan {flags}"))
}

pub(crate) fn stdout(workspace: &Workspace, flags: &str) -> String {
    command::stdout(workspace, &format!("plan {flags}"))
}

/// `base`, `extra` and `reference` in a workspace.
pub(crate) fn sources() -> Workspace {
    let workspace = Workspace::new();
    let o_proj = |i: usize| {
        bf16(
            &format!("model.layers.{i}.self_attn.o_proj.weight"),
            &[130, 140],
        )
    };
    let base = Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [o_proj(0), bf16("lm_head.weight", &[20, 140])],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [o_proj(1), bf16("model.norm.weight", &[140])],
        )
        .aux("tokenizer.json", "{}")
        .aux("deep/er/file", "x")
        .aux("pytorch_model.bin", "x");
    let extra = Checkpoint::single([
        o_proj(1),
        o_proj(2),
        bf16("model.layers.2.norm.weight", &[7]),
    ]);
    let reference = Checkpoint::single([
        tensor("lm_head.weight", Dtype::F8_E4M3, &[20, 140], 1),
        tensor("lm_head.weight_scale_inv", Dtype::F32, &[1, 2], 1),
    ]);
    workspace.write("base", &base);
    workspace.write("extra", &extra);
    workspace.write("reference", &reference);
    workspace
}

/// What `plan --json` must say about `plan`, field by field.
fn expected_json(plan: &Plan, fp8: Option<&QuantizeParams>) -> Value {
    let tensors: Vec<_> = plan
        .shards
        .iter()
        .flat_map(|shard| &shard.tensors)
        .collect();
    let path = |path: &Path| Value::from(path.to_str().unwrap());
    let shards: Vec<Value> = plan
        .shards
        .iter()
        .map(|shard| {
            let tensors: Vec<Value> = shard
                .tensors
                .iter()
                .map(|t| {
                    let mut tensor = serde_json::json!({
                        "name": t.name, "dtype": t.dtype, "shape": t.shape, "offset": t.offset,
                        "len": t.len, "from": path(&t.from), "computed": t.computed,
                    });
                    if let Some(fp8) = fp8.filter(|_| t.computed && t.name.ends_with("_scale_inv"))
                    {
                        tensor["scale_fmt"] = match fp8.scale_format.unwrap_or_default() {
                            ScaleFormat::Ue8m0 => "ue8m0".into(),
                            ScaleFormat::Float32 => "float32".into(),
                        };
                    }
                    tensor
                })
                .collect();
            serde_json::json!({
                "name": shard.name, "len": shard.len, "tensors": tensors,
                "whole_file": shard.whole_file.as_deref().map(path),
            })
        })
        .collect();
    let mut files: Vec<_> = plan.view.files().collect();
    files.sort_by(|a, b| a.1.cmp(&b.1));
    let aux: Vec<Value> = files
        .iter()
        .filter(|(id, _, _)| plan.shards.iter().all(|shard| shard.entry != *id))
        .map(|(_, at, content)| {
            let source = content.whole_file().map(|file| path(file.location()));
            serde_json::json!({"path": path(at), "len": content.len(), "whole_file": source})
        })
        .collect();
    let sources: Vec<Value> = plan
        .report
        .sources
        .iter()
        .enumerate()
        .map(|(i, s)| {
            serde_json::json!({
                "role": if i == 0 { "base" } else { "extra" }, "path": path(&s.path),
                "tensors": s.tensors, "bytes": s.bytes, "added": s.added,
                "added_bytes": s.added_bytes, "overlapping": s.overlapping,
                "left_out": s.left_out,
            })
        })
        .collect();
    let counts = Counts::of_plan(plan);
    serde_json::json!({
        "tensors": tensors.len(),
        "quantized": plan.report.count("quantized"),
        "kept": counts.kept.tensors,
        "counts": counts,
        "bytes": files.iter().map(|(_, _, content)| content.len()).sum::<u64>(),
        "tensor_bytes": tensors.iter().map(|t| t.len).sum::<u64>(),
        "sources": sources,
        "notes": plan.report.notes,
        "shards": shards,
        "aux_files": aux,
    })
}

#[test]
fn the_plan_says_what_the_kernel_will_read_straight_from_the_sources() {
    let workspace = sources();
    let run = |flags: &str, disabled: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.arg("plan").args(flags.split_whitespace());
        command.current_dir(workspace.path());
        command.env("CKPTFS_DISABLE", disabled).output().unwrap()
    };
    let line = |flags: &str, disabled: &str| {
        let output = run(flags, disabled);
        let line = text(&output.stdout)
            .lines()
            .find(|line| line.starts_with("mount  "));
        line.expect("the plan has such a line").to_owned()
    };
    // Two shards, three other files; the index is always new.
    let whole = line("--base base", "");
    if rustix::process::geteuid().is_root() {
        assert_names(&whole, &["5 files", "(99 %)", "straight from the sources"]);
    } else {
        assert_names(&whole, &["it needs root"]);
    }
    let off = line("--base base", "avx2, passthrough");
    assert_names(&off, &["switched off"]);
    let json: Value =
        serde_json::from_slice(&run("--base base --json", "passthrough").stdout).unwrap();
    assert_eq!(json["passthrough"]["files"], 5);
    assert_names(
        json["passthrough"]["obstacle"].as_str().unwrap(),
        &["switched off"],
    );

    let unknown = run("--base base", "warp");
    assert_eq!(unknown.status.code(), Some(1));
    assert_names(
        text(&unknown.stderr),
        &["CKPTFS_DISABLE", "warp", "passthrough", "all"],
    );
}

/// Asserts that all of [`expected_json`] is what `plan --json` with `flags` says.
fn assert_agrees(workspace: &Workspace, flags: &str, request: &ViewRequest) {
    let json: Value = serde_json::from_str(&stdout(workspace, flags)).unwrap();
    let plan = request.plan().unwrap();
    let expected = expected_json(&plan, Some(&request.operations.quantize));
    for (key, expected) in expected.as_object().unwrap() {
        assert_eq!(json.get(key), Some(expected), "{flags}: {key}");
    }
    // Their texts have flags where those of the library have keys.
    let warnings = json["warnings"].as_array().unwrap().iter();
    let codes: Vec<&str> = warnings.map(|w| w["code"].as_str().unwrap()).collect();
    let expected = plan.report.warnings.iter();
    let expected: Vec<&str> = expected.map(|w| w.code().name()).collect();
    assert_eq!(codes, expected, "{flags}");
}

#[test]
fn json_agrees_with_the_library_for_every_flag() {
    let workspace = sources();
    let at = |name: &str| workspace.path().join(name);
    let (base, extra, reference) = (at("base"), at("extra"), at("reference"));
    let (b, e, r) = (base.display(), extra.display(), reference.display());

    let plain = ViewRequest::new(&base);
    let patched = plain
        .clone()
        .with(|asked| asked.patch.extras.push(extra.clone().into()));
    let rules = QuantizeParams::by_rules();
    let fp8 = |fp8: QuantizeParams| patched.clone().with(|asked| asked.quantize = fp8);
    assert_agrees(&workspace, &format!("--base {b} --json"), &plain);
    assert_agrees(&workspace, &format!("--json --source {b}"), &plain);
    assert_agrees(
        &workspace,
        &format!("--base {b} --extra {e} --json"),
        &patched,
    );

    let flags = format!("--base {b} --extra {e} --json");
    assert_agrees(&workspace, &format!("{flags} --fp8"), &fp8(rules.clone()));
    let all = QuantizeParams {
        references: vec![reference.clone().into()],
        patterns: vec![r"model\..*norm.*o".to_owned(), "lm_head.*".to_owned()],
        scale_format: Some(ScaleFormat::Float32),
        partial_blocks: Some(PartialBlocks::Quantize),
        ..rules.clone()
    };
    let selections =
        format!(r"--fp8 --reference {r} --fp8-pattern model\..*norm.*o --fp8-pattern lm_head.*");
    let more = "--scale-fmt float32 --partial-blocks quantize";
    assert_agrees(
        &workspace,
        &format!("{flags} {selections} {more}"),
        &fp8(all),
    );
    let keep = QuantizeParams {
        partial_blocks: Some(PartialBlocks::Keep),
        scale_format: Some(ScaleFormat::Ue8m0),
        ..rules
    };
    let more = "--fp8 --scale-fmt ue8m0 --partial-blocks keep";
    assert_agrees(&workspace, &format!("{flags} {more}"), &fp8(keep));
    let referenced = QuantizeParams {
        references: vec![reference.clone().into()],
        ..QuantizeParams::default()
    };
    assert_agrees(
        &workspace,
        &format!("{flags} --reference {r}"),
        &fp8(referenced),
    );
}

#[test]
fn json_agrees_with_the_library_for_every_layout() {
    let workspace = sources();
    let base = workspace.path().join("base");
    let flags = format!("--base {} --json", base.display());
    let request = |shards, shard_bytes| ViewRequest {
        shards,
        shard_bytes,
        ..ViewRequest::new(&base)
    };
    let kib = 1 << 10;
    // 2^-15 GiB are 32 KiB.
    let cases = [
        ("--repack", request(Some(Shards::Repack), 4 << 30)),
        ("--no-repack", request(Some(Shards::Keep), 4 << 30)),
        ("--single-file", request(Some(Shards::Single), 4 << 30)),
        (
            "--repack --shard-size 0.000030517578125",
            request(Some(Shards::Repack), 32 * kib),
        ),
        (
            "--repack --shard-size 2",
            request(Some(Shards::Repack), 2 << 30),
        ),
    ];
    for (more, request) in cases {
        assert_agrees(&workspace, &format!("{flags} {more}"), &request);
    }
}

#[test]
fn the_plan_says_how_much_of_the_sources_first_reads_stream() {
    let workspace = sources();
    let recipe = |method: &str, view: &str| {
        let text =
            format!("merge_method: {method}\nmodels: [{{model: base}}, {{model: other}}]\n{view}");
        std::fs::write(workspace.path().join("recipe.yml"), text).unwrap();
    };
    let flags = "--recipe recipe.yml --model other=base";
    let first_reads = || {
        let json = stdout(&workspace, &format!("{flags} --json"));
        let json: Value = serde_json::from_str(&json).unwrap();
        let json = json["first_reads"].clone();
        let line = stdout(&workspace, flags);
        let mut lines = line.lines().filter(|line| line.starts_with("facts "));
        (json, lines.next().map(str::to_owned))
    };
    recipe("linear", "parameters: {weight: 1}\n");
    assert_eq!(first_reads(), (Value::Null, None));

    // One pass over both models' tensors of 130 x 140, twice, 20 x 140, and 140 elements.
    let slerp = "base_model: base\nparameters: {t: 0.5}\n";
    let (largest, all) = (2 * 2 * 130 * 140, 2 * 2 * (2 * 130 * 140 + 20 * 140 + 140));
    for view in ["", "view: {dtype: f32, fp8: true}\n"] {
        recipe("slerp", &format!("{slerp}{view}"));
        let (json, line) = first_reads();
        assert_eq!(
            json,
            serde_json::json!({"largest": largest, "all": all}),
            "{view}"
        );
        assert_names(
            &line.unwrap(),
            &[
                "first read of a tensor",
                "71.09 KiB of sources",
                "153.67 KiB",
            ],
        );
    }
}

#[test]
fn the_summary_tells_counts_shards_bytes_and_warnings() {
    let workspace = sources();
    let plan = stdout(&workspace, "--base base --extra extra --fp8");
    let parts = [
        "4 tensors",
        "3 tensors",
        "2 taken",
        "1 overlapping",
        "9 tensors: 2 kept, 1 added, 3 changed (fp8), 3 scales",
        "3 shards",
        "model-00003-of-00003.safetensors",
        "deep/er/file",
        "pytorch_model.bin",
        "warning",
    ];
    assert_names(&plan, &parts);
}

#[test]
fn a_view_that_cannot_exist_is_exit_code_1_with_the_reason_on_standard_error() {
    let workspace = sources();
    std::fs::remove_file(
        workspace
            .path()
            .join("base/model-00002-of-00002.safetensors"),
    )
    .unwrap();
    for flags in [
        "--base base",
        "--base base --json",
        "--base extra --extra base",
    ] {
        let output = ckptfs_plan(&workspace, flags);
        assert_eq!(output.status.code(), Some(1), "{flags}");
        assert_eq!(text(&output.stdout), "", "{flags}");
        assert_names(text(&output.stderr), &["model-00002-of-00002.safetensors"]);
    }
    for flags in [
        "--base nowhere",
        "--base extra --extra nowhere",
        "--base extra --reference nowhere",
    ] {
        let output = ckptfs_plan(&workspace, flags);
        assert_eq!(output.status.code(), Some(1), "{flags}");
        assert_eq!(text(&output.stdout), "", "{flags}");
        assert_names(text(&output.stderr), &["nowhere"]);
    }
}

#[test]
fn wrong_usage_is_exit_code_2_with_the_reason_on_standard_error() {
    let workspace = sources();
    let wrong = [
        ("", "--base"),
        ("--base", "--base"),
        ("--base base --wrong", "--wrong"),
        ("--base base surplus", "[DIR]"),
        ("--base base --repack --no-repack", "--no-repack"),
        ("--base base --single-file --no-repack", "--no-repack"),
        ("--base base --single-file --shard-size 1", "--shard-size"),
        ("--base base --fp8 --scale-fmt e8m0", "e8m0"),
        ("--base base --fp8 --partial-blocks drop", "drop"),
        ("--base base --shard-size 0", "shard-size"),
        ("--base base --shard-size -1", "-1"),
        ("--base base --shard-size many", "many"),
        ("--base base --shard-size nan", "nan"),
        ("--base base --shard-size inf", "inf"),
        ("--base base --fp8-pattern a(b", "unclosed group"),
        ("--base base --fp8-pattern a)|(b", "unopened group"),
    ];
    for (flags, reason) in wrong {
        let output = ckptfs_plan(&workspace, flags);
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert_eq!(text(&output.stdout), "", "{flags}");
        assert_names(text(&output.stderr), &[reason]);
    }
}

#[test]
fn planning_changes_nothing_in_the_sources() {
    let workspace = sources();
    let list = || {
        let output = Command::new("find")
            .args([".", "-printf", "%p %s %T@ %m\n"])
            .current_dir(workspace.path())
            .output();
        output.unwrap().stdout
    };
    let before = list();
    assert!(!before.is_empty());
    stdout(&workspace, "--base base --extra extra --fp8 --json");
    assert!(before == list());
}

#[test]
fn what_writing_the_view_would_take_is_told_for_a_directory() {
    let workspace = sources();
    let view = "--base base --extra extra --fp8";
    let json = |out: &str| -> Value {
        let json = stdout(&workspace, &format!("{view} --json --out {out}"));
        serde_json::from_str::<Value>(&json).unwrap()["writing"].clone()
    };
    let flags = format!("materialize {view} --out written --quiet");
    command::stdout(&workspace, &flags);
    let written = files(&workspace.path().join("written"));
    let sizes: Vec<u64> = written.values().map(|bytes| bytes.len() as u64).collect();
    let all: u64 = sizes.iter().sum();

    let writing = json("new/er");
    assert_eq!(writing["directory"], "new/er");
    assert_eq!(writing["files"], sizes.len());
    assert_eq!(writing["bytes"], all);
    assert_eq!(writing["complete_files"], 0);
    let written = writing["written_bytes"].as_u64().unwrap();
    assert_eq!(written + writing["shared_bytes"].as_u64().unwrap(), all);
    assert!(writing["needed_bytes"].as_u64().unwrap() >= written);
    assert!(writing["available_bytes"].as_u64().unwrap() > all);
    assert!(!workspace.path().join("new").exists());

    let shown = stdout(&workspace, &format!("{view} --summary --out new/er"));
    let line = format!("\nwrite  {} files: ", sizes.len());
    assert!(
        shown.contains(&line) && shown.contains("\nspace  "),
        "{shown}"
    );
    let output = ckptfs_plan(&workspace, &format!("{view} --out written"));
    assert_eq!(output.status.code(), Some(1));
    assert_names(text(&output.stderr), &["error[not-empty]", "written"]);
}

#[test]
fn the_json_begins_with_the_figures_in_one_flat_object() {
    let workspace = sources();
    let json = |flags: &str| -> Value {
        let json = stdout(
            &workspace,
            &format!("--base base --extra extra {flags} --json"),
        );
        serde_json::from_str(&json).unwrap()
    };
    let plan = json(r"--fp8 --drop model\.norm\.weight --out new");
    let figures = plan["figures"].as_object().unwrap();
    assert!(figures.values().all(Value::is_number), "{figures:?}");
    // The base has four tensors, the extra three, one of which the base has too.
    let expected = [
        ("base_tensors", 4),
        ("base_bytes", 2 * (2 * 130 * 140 + 20 * 140 + 140)),
        ("extra_tensors", 3),
        ("added", 2),
        ("overlapping", 1),
        ("renamed", 0),
        ("dropped", 1),
        ("quantized", 3),
        ("kept", 1),
        ("tensors", 3 + 3 + 2),
    ];
    for (name, value) in expected {
        assert_eq!(figures[name], value, "{name}");
    }
    assert_eq!(figures["file_bytes"], plan["bytes"]);
    assert_eq!(figures["tensor_bytes"], plan["tensor_bytes"]);
    assert_eq!(
        figures["warnings"],
        plan["warnings"].as_array().unwrap().len()
    );
    assert_eq!(figures["written_bytes"], plan["writing"]["written_bytes"]);
    assert_eq!(
        figures["available_bytes"],
        plan["writing"]["available_bytes"]
    );
    assert!(json("")["figures"].get("written_bytes").is_none());
}

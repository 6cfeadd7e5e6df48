//! `--fp8-rules`, and what is said of weights that rules leave unquantized.

use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, stdout, text};
use crate::common::{Workspace, assert_names};

/// A layer of Mixtral: 32 KiB that the exact rules quantize, 96 KiB that only its own do, and a router.
fn mixtral() -> Workspace {
    let workspace = Workspace::new();
    let layer = "model.layers.0";
    let tensors = [
        bf16(&format!("{layer}.self_attn.o_proj.weight"), &[128, 128]),
        bf16(
            &format!("{layer}.block_sparse_moe.experts.0.w1.weight"),
            &[128, 128],
        ),
        bf16(
            &format!("{layer}.block_sparse_moe.experts.0.w2.weight"),
            &[128, 128],
        ),
        bf16(
            &format!("{layer}.block_sparse_moe.experts.0.w3.weight"),
            &[128, 128],
        ),
        bf16(&format!("{layer}.block_sparse_moe.gate.weight"), &[1, 128]),
    ];
    let config = json!({"model_type": "mixtral"}).to_string();
    workspace.write(
        "base",
        &Checkpoint::single(tensors).aux("config.json", config),
    );
    workspace
}

fn plan(workspace: &Workspace, flags: &str) -> Value {
    let plan = stdout(workspace, &format!("plan --base base --json {flags}"));
    serde_json::from_str(&plan).unwrap()
}

#[test]
fn the_flag_chooses_the_rules_with_and_without_fp8_and_wins_over_a_recipe() {
    let workspace = mixtral();
    let quantized = |flags: &str| plan(&workspace, flags)["quantized"].as_u64().unwrap();
    assert_eq!(quantized("--fp8"), 1);
    assert_eq!(quantized("--fp8-rules exact"), 1);
    assert_eq!(quantized("--fp8-rules official"), 4);
    assert_eq!(quantized("--fp8 --fp8-rules official"), 4);
    assert_eq!(quantized("--fp8-rules official --fp8"), 4);
    for (rules, flags, expected) in [
        ("official", "", 4),
        ("official", "--fp8", 1),
        ("exact", "", 1),
        ("true", "--fp8-rules official", 4),
    ] {
        let recipe = format!("base: base\nview: {{fp8: {{rules: {rules}}}}}\n");
        std::fs::write(workspace.path().join("view.yml"), recipe).unwrap();
        let plan = stdout(
            &workspace,
            &format!("plan --recipe view.yml --json {flags}"),
        );
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert_eq!(plan["quantized"], expected, "{rules} {flags}");
    }
}

#[test]
fn other_rules_are_wrong_usage_that_names_those_there_are() {
    let workspace = mixtral();
    let output = ckptfs(&workspace, "plan --base base --fp8-rules some");
    assert_eq!(output.status.code(), Some(2));
    assert_names(
        text(&output.stderr),
        &["--quantize-rules", "exact", "official"],
    );
}

#[test]
fn the_recipe_of_official_rules_is_read_as_official_rules() {
    let workspace = mixtral();
    let emitted = stdout(
        &workspace,
        "plan --base base --fp8-rules official --emit-recipe",
    );
    assert_names(&emitted, &["rules: official"]);
    std::fs::write(workspace.path().join("view.yml"), emitted).unwrap();
    let plan = stdout(&workspace, "plan --recipe view.yml --json");
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["quantized"], 4);
}

#[test]
fn plan_says_how_much_stays_unquantized_and_which_flag_changes_that() {
    let workspace = mixtral();
    let said = stdout(&workspace, "plan --base base --fp8 --summary");
    assert_names(
        &said,
        &[
            "unquantized  75 % of the bytes of weights in layers (block_sparse_moe.experts.*.w1 24 %",
            "warning[unquantized]: 75 %",
            "use --quantize-rules official to quantize what FP8 releases of mixtral quantize",
            "--quantize-pattern",
        ],
    );
    let json = plan(&workspace, "--fp8");
    let module =
        |module: &str, bytes: usize| json!({"module": module, "tensors": 1, "bytes": bytes});
    let expected = json!({
        "layer_bytes": 4 * 32768 + 256,
        "bytes": 3 * 32768 + 256,
        "modules": [
            module("block_sparse_moe.experts.*.w1", 32768),
            module("block_sparse_moe.experts.*.w2", 32768),
            module("block_sparse_moe.experts.*.w3", 32768),
            module("block_sparse_moe.gate", 256),
        ],
    });
    assert_eq!(json["unquantized"], expected);
    let official = stdout(
        &workspace,
        "plan --base base --fp8-rules official --summary",
    );
    assert_names(
        &official,
        &["unquantized  less than 1 % ", "block_sparse_moe.gate"],
    );
    assert!(!official.contains("warning"), "{official}");
    assert_eq!(plan(&workspace, "")["unquantized"], Value::Null);
}

#[test]
fn an_unknown_model_type_ends_with_the_flag_that_is_the_way_out() {
    let workspace = Workspace::new();
    let base = Checkpoint::single([bf16("model.layers.0.mlp.up_proj.weight", &[8, 8])]);
    workspace.write(
        "base",
        &base.aux("config.json", r#"{"model_type": "other"}"#),
    );
    let output = ckptfs(&workspace, "plan --base base --fp8-rules official");
    assert_eq!(output.status.code(), Some(1));
    assert_names(
        text(&output.stderr),
        &[
            "error[unknown-model-type]",
            "\"other\"",
            "deepseek_v3",
            "use --quantize-pattern",
        ],
    );
}

//! The flag, and what the plan tells.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::Checkpoint;
use crate::common::command::{ckptfs, stdout, text};
use crate::common::{Workspace, assert_names};
use crate::fixture::{Adapter, numbers, weight};

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("base", &Checkpoint::single([weight("x", &[4, 6])]));
    let adapter = Adapter::new(2, 3.0).linear("x", [4, 6], 2);
    adapter.write(&workspace, "lora");
    adapter.write(&workspace, "with:colon");
    workspace
}

#[test]
fn the_plan_tells_what_each_adapter_changes() {
    let workspace = workspace();
    let plan = stdout(&workspace, "plan --base base --lora lora --lora lora:-0.5");
    assert_names(
        &plan,
        &[
            "lora: merged into 1 tensor (scaling 1.5), 0 replaced",
            "lora times -0.5: merged into 1 tensor (scaling -0.75), 0 replaced",
        ],
    );
    let json = stdout(&workspace, "plan --base base --lora lora:2 --json");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["adapters"],
        json!([{
            "path": workspace.path().join("lora"),
            "weight": 2.0,
            "merged": 1,
            "replaced": 0,
            "scalings": [3.0],
        }])
    );
}

#[test]
fn an_order_of_experts_that_nothing_says_is_asked_for_by_its_flag() {
    let workspace = Workspace::new();
    let module = "model.layers.0.mlp.experts";
    let down = numbers(&format!("{module}.down_proj"), Dtype::BF16, &[3, 8, 6]);
    workspace.write("base", &Checkpoint::single([down]));
    let factor =
        |role, shape: &[usize]| numbers(&format!("{module}.lora_{role}.weight"), Dtype::F32, shape);
    let adapter = Adapter::new(2, 3.0).set("target_parameters", vec!["experts.down_proj"]);
    let adapter = adapter.tensor(factor("A", &[6, 6]));
    adapter
        .tensor(factor("B", &[8, 6]))
        .write(&workspace, "lora");
    let plan = "plan --base base --lora lora";
    let silent = stdout(&workspace, plan);
    assert_names(
        &silent,
        &[
            "warning[expert-order]",
            "--lora-experts rank-major",
            "--lora-experts expert-major",
        ],
    );
    let said = stdout(&workspace, &format!("{plan} --lora-experts expert-major"));
    assert!(!said.contains("warning"), "{said}");
    let recipe = stdout(
        &workspace,
        &format!("{plan} --lora-experts expert-major --emit-recipe"),
    );
    assert_names(&recipe, &["lora_experts: expert-major"]);
}

#[test]
fn only_a_number_behind_the_last_colon_is_a_weight() {
    let workspace = workspace();
    let plan = stdout(&workspace, "plan --base base --lora with:colon");
    assert_names(&plan, &["with:colon: merged", "scaling 1.5"]);
    let plan = stdout(&workspace, "plan --base base --lora with:colon:2");
    assert_names(&plan, &["with:colon times 2", "scaling 3"]);
    let output = ckptfs(&workspace, "plan --base base --lora lora:inf");
    assert_eq!(output.status.code(), Some(2));
    assert_names(text(&output.stderr), &["inf", "not finite"]);
}

#[test]
fn an_adapter_is_a_source_that_nothing_is_written_into() {
    let workspace = workspace();
    let output = ckptfs(
        &workspace,
        "materialize --base base --lora lora --out lora/merged",
    );
    assert_ne!(output.status.code(), Some(0));
    assert!(!workspace.path().join("lora/merged").exists());
}

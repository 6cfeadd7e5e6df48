//! The flag, and what the plan tells.

use serde_json::{Value, json};

use crate::common::checkpoint::Checkpoint;
use crate::common::command::{ckptfs, stdout, text};
use crate::common::{Workspace, assert_names};
use crate::fixture::{Adapter, weight};

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

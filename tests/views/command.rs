//! The plan of a view, as the command prints it.

use ckptfs::recipe::ViewRequest;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, small};
use crate::common::command::{ckptfs, stdout};
use crate::common::{Workspace, assert_names};
use crate::provenance::{layered, lineages, of_different_names};

#[test]
fn patterns_that_are_none_are_wrong_usage_and_counts_are_in_the_plan() {
    let workspace = Workspace::new();
    workspace.write("base", &Checkpoint::single(small(["a", "b"])));
    for flags in ["--only (", "--drop a)|(b"] {
        let output = ckptfs(&workspace, &format!("plan --base base {flags}"));
        assert_eq!(output.status.code(), Some(2), "{flags}");
    }
    let text = stdout(&workspace, "plan --base base --drop b --rename a=c");
    assert_names(&text, &["change 1 renamed, 1 dropped\n"]);
    let json = stdout(&workspace, "plan --base base --only a --json");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["dropped"], 1);
}

#[test]
fn rename_takes_rules_in_order_and_the_plan_counts() {
    let workspace = Workspace::new();
    workspace.write("base", &Checkpoint::single(small(["a", "b"])));
    let text = stdout(&workspace, "plan --base base --rename a=c --rename c=d");
    assert_names(&text, &["change 1 renamed\n"]);
    let json = stdout(&workspace, "plan --base base --rename a=c --json");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["renamed"], 1);
    let wrong = ckptfs(&workspace, "plan --base base --rename a");
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_plan_folds_layers_and_tells_of_every_tensor_if_asked() {
    let workspace = layered(12);
    let flags = "plan --base base --extra extra --fp8";
    let text = stdout(&workspace, flags);
    let extra = workspace.path().join("extra");
    let extra = extra.display();
    let json = |flags: &str| -> Value { serde_json::from_str(&stdout(&workspace, flags)).unwrap() };
    let without = json(&format!("{flags} --json"));
    let files = without["aux_files"].as_array().unwrap();
    let config = files.iter().find(|file| file["path"] == "config.json");
    let config = &config.unwrap()["len"];
    for line in [
        "model.layers.{0..11}.mlp.up_proj.weight  12 × F8_E4M3 [4, 4], scales F32 [1, 1]  240 B"
            .to_owned(),
        "    base BF16 [4, 4] → fp8 (gives codes, block [128,128], scale_fmt ue8m0)".to_owned(),
        "model.layers.{0..11}.norm.weight  12 × BF16 [4]  96 B".to_owned(),
        "    base".to_owned(),
        format!("    extra {extra}"),
        format!("config.json  {config} B  edited: quantization_config set"),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line:?} in {text}"
        );
    }
    assert!(
        without["shards"][0]["tensors"][0]
            .get("provenance")
            .is_none()
    );
    let with = json(&format!("{flags} --json --provenance"));
    let groups = with["groups"].as_array().unwrap();
    let count: u64 = groups.iter().map(|g| g["tensors"].as_u64().unwrap()).sum();
    assert_eq!(count, with["tensors"].as_u64().unwrap());
    let bytes: u64 = groups.iter().map(|g| g["bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, with["tensor_bytes"].as_u64().unwrap());
    let request = ViewRequest::new(workspace.path().join("base")).with(|asked| {
        asked
            .patch
            .extras
            .push(workspace.path().join("extra").into());
        asked.quantize.rules = Some(ckptfs::ops::RuleSet::Exact);
    });
    let expected = lineages(&request);
    let mut seen = 0;
    for shard in with["shards"].as_array().unwrap() {
        for tensor in shard["tensors"].as_array().unwrap() {
            let name = tensor["name"].as_str().unwrap();
            assert_eq!(tensor["provenance"], expected[name], "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len());
    assert_eq!(
        with["edited_config"]["edits"],
        json!({"quantization_config": "set"})
    );
}

#[test]
fn a_name_does_not_move_the_cursor() {
    let workspace = Workspace::new();
    let base = Checkpoint::single(small(["a\u{1b}[31m\nbase\u{7}.0.w"]));
    workspace.write("base", &base);
    let text = stdout(&workspace, "plan --base base");
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert!(text.contains(r"a\u001b[31m\nbase"), "{text:?}");
}

#[test]
fn the_plan_counts_kinds_of_tensors_that_it_leaves_out() {
    let workspace = Workspace::new();
    workspace.write("base", &of_different_names(3000));
    let text = stdout(&workspace, "plan --base base");
    assert!(text.contains("2800 kinds of tensors more"), "{text}");
}

//! `--recipe` on the command line.

use serde_json::Value;

use crate::common::assert_names;
use crate::common::command::{ckptfs, stdout, text};
use crate::fixture::{workspace, write};

const SLICES: &str = "
merge_method: passthrough
slices:
  - sources: [{model: org/x, layer_range: [0, 3]}]
  - sources: [{model: b, layer_range: [2, 4]}]
view: {shard_size: 100}
";

#[test]
fn the_plan_tells_the_method_the_models_and_what_is_made_of_what() {
    let workspace = workspace();
    write(&workspace, SLICES);
    let plan = stdout(&workspace, "plan --recipe recipe.yml --model org/x=a");
    assert_names(
        &plan,
        &[
            "merge  passthrough of 2 models; config and tokenizer of org/x",
            "before the layers: 1 tensor, as stored in org/x",
            "layers 0-2: 9 tensors, as stored in org/x layers 0-2",
            "layers 3-4: 6 tensors, as stored in b layers 2-3",
            "behind the layers: 2 tensors, as stored in b",
            "model  org/x in ",
        ],
    );
    let json = stdout(
        &workspace,
        "plan --json --recipe recipe.yml --model org/x=a",
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["merge"]["method"], "passthrough");
    assert_eq!(json["merge"]["models"], serde_json::json!(["org/x", "b"]));
    assert_eq!(json["sources"][1]["role"], "model");
    assert_eq!(json["merge"]["stretches"][2]["tensors"], 6);
}

#[test]
fn flags_win_over_the_recipe_and_add_to_its_lists() {
    let workspace = workspace();
    write(
        &workspace,
        "base: a\nview: {patch: [b], shard_size: 100, repack: true}\n",
    );
    let shards = |flags: &str| {
        let plan = stdout(
            &workspace,
            &format!("plan --json --recipe recipe.yml {flags}"),
        );
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let sources = plan["sources"].as_array().unwrap().len();
        (plan["shards"].as_array().unwrap().len(), sources)
    };
    let (many, sources) = shards("");
    assert!(many > 1, "{many}");
    assert_eq!(sources, 2);
    assert_eq!(shards("--shard-size-gb 1 --extra ones"), (1, 3));
    let refused = ckptfs(&workspace, "plan --recipe recipe.yml --scale-fmt float32");
    assert_names(
        text(&refused.stderr),
        &["neither the recipe nor a flag says what"],
    );
}

#[test]
fn a_view_has_a_base_or_a_recipe() {
    let workspace = workspace();
    write(&workspace, SLICES);
    for wrong in [
        "plan",
        "plan --base a --recipe recipe.yml",
        "plan --base a --model x=a",
        "plan --recipe recipe.yml --model x",
    ] {
        assert_eq!(ckptfs(&workspace, wrong).status.code(), Some(2), "{wrong}");
    }
}

//! The flags, what the plan shows, and the recipe that is written of them.

use serde_json::{Value, json};

use crate::common::command::{ckptfs, stdout, text};
use crate::common::{Workspace, assert_names};
use crate::fixture::tied;

#[test]
fn plan_counts_what_is_untied_and_resized_and_says_where_it_is_from() {
    let workspace = Workspace::new();
    workspace.write("base", &tied());
    let flags = "plan base --untie --vocab-size 16 --vocab-pad mean";
    let plan = stdout(&workspace, flags);
    assert_names(
        &plan,
        &[
            "change 1 untied, 2 resized",
            "facts ",
            "3 shards",
            "2 changed (pad",
        ],
    );
    let json: Value =
        serde_json::from_str(&stdout(&workspace, &format!("{flags} --json --provenance"))).unwrap();
    for of in [&json, &json["figures"]] {
        assert_eq!(
            (&of["untied"], &of["tied"], &of["resized"]),
            (&json!(1), &json!(0), &json!(2))
        );
    }
    let edits = json!({"tie_word_embeddings": "set", "vocab_size": "set"});
    assert_eq!(json["edited_config"]["edits"], edits);
    let tensors = json["shards"][2]["tensors"].as_array().unwrap();
    let provenance = &tensors[0]["provenance"];
    assert_eq!(tensors[0]["name"], "lm_head.weight");
    assert_eq!(provenance["from"][0]["tensor"], "model.embed_tokens.weight");
    let steps = provenance.to_string();
    assert_names(&steps, &[r#"{"operator":"pad","rows":4,"with":"mean"}"#]);
}

#[test]
fn the_recipe_of_the_flags_plans_the_same() {
    let workspace = Workspace::new();
    workspace.write("base", &tied());
    for flags in [
        "--untie --vocab-multiple 64",
        "--vocab-size 10",
        "--vocab-size 30 --vocab-pad mean",
    ] {
        let recipe = stdout(&workspace, &format!("plan base {flags} --emit-recipe"));
        std::fs::write(workspace.path().join("view.yml"), &recipe).unwrap();
        let [a, b] = [
            format!("plan base {flags} --json"),
            "plan view.yml --json".to_owned(),
        ];
        let json = |command: &str| -> Value {
            serde_json::from_str(&stdout(&workspace, command)).unwrap()
        };
        assert_eq!(json(&a)["shards"], json(&b)["shards"], "{recipe}");
    }
}

#[test]
fn numbers_that_are_none_are_refused_by_the_command_line() {
    let workspace = Workspace::new();
    workspace.write("base", &tied());
    for (flags, words) in [
        ("--vocab-size x", "x is not a whole number"),
        ("--vocab-size 0", "must not be 0"),
        ("--vocab-multiple 1.5", "not a whole number"),
        ("--vocab-pad ones", "zeros, mean"),
    ] {
        let output = ckptfs(&workspace, &format!("plan base {flags}"));
        assert_eq!(output.status.code(), Some(2), "{flags}");
        let stderr = text(&output.stderr);
        assert_names(stderr, &[words]);
    }
}

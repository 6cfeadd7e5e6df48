//! config.json, tokenizer and the rows of embeddings of a merge.

use std::collections::BTreeSet;

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::{Workspace, assert_names, readback};
use crate::fixture::{error, plan, shown, workspace};

fn config(workspace: &Workspace, recipe: &str) -> Value {
    let plan = plan(workspace, recipe).unwrap();
    serde_json::from_slice(&readback::read_path(&plan, "config.json").unwrap()).unwrap()
}

#[test]
fn the_config_counts_the_layers_and_tells_the_dtype() {
    let workspace = workspace();
    let recipe = "
merge_method: passthrough
dtype: float16
out_dtype: bfloat16
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources: [{model: b, layer_range: [1, 3]}]
";
    let config = config(&workspace, recipe);
    assert_eq!(config["num_hidden_layers"], 5);
    assert_eq!(
        config["layer_types"],
        json!(["type0", "type1", "type2", "type1", "type2"])
    );
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(config["vocab_size"], 6);
}

#[test]
fn a_config_that_stays_true_keeps_every_byte() {
    let workspace = workspace();
    let recipe = "merge_method: passthrough\nmodels: [{model: a}]\n";
    let plan = plan(&workspace, recipe).unwrap();
    let shown = readback::read_path(&plan, "config.json").unwrap();
    assert_eq!(
        shown,
        std::fs::read(workspace.path().join("a/config.json")).unwrap()
    );
}

#[test]
fn the_tokenizer_of_the_donor_is_shown_and_its_model_card_is_not() {
    let workspace = workspace();
    let recipe = "merge_method: passthrough\nmodels: [{model: a}]\n";
    let plan = plan(&workspace, recipe).unwrap();
    let shown: BTreeSet<String> = readback::read_all(&plan)
        .keys()
        .map(|path| path.display().to_string())
        .filter(|name| !name.contains("safetensors"))
        .collect();
    let expected = ["config.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(shown, expected.map(str::to_owned).into());
    assert_names(&plan.report.notes.join("\n"), &["README.md"]);
}

/// A model whose vocabulary is `tokens`, a row for each.
fn with_tokens(seed: u64, tokens: &[&str]) -> Checkpoint {
    let rows = tokens.len();
    let vocabulary: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), id.into()))
        .collect();
    let tokenizer = json!({"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": []});
    Checkpoint::single([
        tensor("model.embed_tokens.weight", Dtype::BF16, &[rows, 3], seed),
        bf16("model.layers.0.w", &[2]),
    ])
    .config(&format!(
        r#"{{"num_hidden_layers": 1, "vocab_size": {rows}}}"#
    ))
    .aux("tokenizer.json", tokenizer.to_string())
}

fn rows(tensor: &TensorData) -> Vec<&[u8]> {
    tensor.bytes.chunks(6).collect()
}

#[test]
fn rows_are_put_in_the_order_of_the_tokenizer() {
    let workspace = Workspace::new();
    let (x, y) = (
        with_tokens(1, &["p", "q", "r"]),
        with_tokens(2, &["r", "s", "p", "q"]),
    );
    workspace.write("x", &x);
    workspace.write("y", &y);
    let recipe = |weights: [u8; 2], source: &str| {
        let [x, y] = weights;
        format!(
            "merge_method: linear\nmodels: [{{model: x, parameters: {{weight: {x}}}}}, {{model: y, parameters: {{weight: {y}}}}}]\nbase_model: x\ntokenizer_source: {source}\n"
        )
    };
    let embedding = "model.embed_tokens.weight";
    let (of_x, of_y) = (rows(x.get(embedding)), rows(y.get(embedding)));
    // All weight on one model shows its rows alone.
    let merged = shown(&workspace, &recipe([0, 1], "base"));
    assert_eq!(rows(&merged[embedding]), [of_y[2], of_y[3], of_y[0]]);
    // A token that only y has is y's row for both.
    for weights in [[1, 0], [0, 1]] {
        let merged = shown(&workspace, &recipe(weights, "y"));
        let own = [
            [of_x[2], of_y[1], of_x[0], of_x[1]],
            [of_y[0], of_y[1], of_y[2], of_y[3]],
        ];
        assert_eq!(rows(&merged[embedding]), own[usize::from(weights[1])]);
    }
    assert_eq!(config(&workspace, &recipe([1, 1], "y"))["vocab_size"], 4);
}

#[test]
fn unlike_rows_are_an_error_unless_they_may_be_cut() {
    let workspace = Workspace::new();
    let (x, y) = (
        with_tokens(1, &["p", "q", "r"]),
        with_tokens(2, &["p", "q"]),
    );
    workspace.write("x", &x);
    workspace.write("y", &y);
    let recipe = "merge_method: linear\nmodels: [{model: x, parameters: {weight: 1}}, {model: y, parameters: {weight: 0}}]\n";
    assert_names(
        &error(&workspace, recipe),
        &[
            "model.embed_tokens.weight",
            "[3, 3] in x",
            "[2, 3] in y",
            "tokenizer_source",
            "truncate_embeddings",
        ],
    );
    let cut = format!("{recipe}view: {{truncate_embeddings: true}}\n");
    let merged = shown(&workspace, &cut);
    let embedding = "model.embed_tokens.weight";
    assert_eq!(rows(&merged[embedding]), rows(x.get(embedding))[..2]);
    assert_eq!(config(&workspace, &cut)["vocab_size"], 2);
}

//! What is wrong with a recipe: file, line, what was found, what was expected.

use crate::common::assert_names;
use crate::common::checkpoint::bf16;
use crate::fixture::{error, model, workspace};

#[track_caller]
fn refused(recipe: &str, parts: &[&str]) {
    assert_names(&error(&workspace(), recipe.trim_start()), parts);
}

const MODELS: &str = "models: [{model: a}, {model: b}]\n";

#[test]
fn what_is_not_yaml_or_not_one_document() {
    refused("a: [1\n", &["recipe.yml:", "not valid YAML"]);
    refused("", &["recipe.yml", "empty"]);
    refused(
        "base: a\n---\nbase: b\n",
        &["recipe.yml:2:1", "second document"],
    );
    refused("base: !!str a\n", &["recipe.yml:1", "tags"]);
    refused(
        "base: a\nbase: b\n",
        &["recipe.yml:2:1", "base", "second time", "line 1"],
    );
    refused("- base\n", &["recipe.yml:1:1", "a list", "a map of keys"]);
}

#[test]
fn keys_that_nobody_knows() {
    refused(
        "base: a\nvieww: {}\n",
        &["recipe.yml:2:1", "vieww is not a key", "models, slices"],
    );
    refused(
        "base: a\nview:\n  fp9: true\n",
        &["recipe.yml:3:3", "fp9", "its keys are"],
    );
    refused(
        "merge_method: linear\nmodels:\n  - model: a\n    weight: 1\n",
        &["recipe.yml:4:5", "weight is not a key of a model"],
    );
}

#[test]
fn a_merge_has_one_body() {
    refused(
        "merge_method: linear\n",
        &[
            "recipe.yml:1:1",
            "exactly one of models, slices and modules",
        ],
    );
    refused(
        &format!("merge_method: linear\n{MODELS}slices: []\n"),
        &["recipe.yml:3", "exactly one"],
    );
    refused(
        "merge_method: linear\nmodels: []\n",
        &["recipe.yml:2", "models is empty"],
    );
    refused(MODELS, &["recipe.yml:1:1", "needs merge_method"]);
    refused(
        "base: a\nmerge_method: linear\n",
        &["recipe.yml:2", "merge_method belongs to a merge"],
    );
}

#[test]
fn methods_and_what_they_need() {
    refused(
        &format!("{MODELS}merge_method: lineer\n"),
        &["recipe.yml:2:15", "\"lineer\"", "linear, "],
    );
    refused(
        &format!("merge_method: passthrough\n{MODELS}"),
        &["recipe.yml:2", "passthrough takes at most 1 models"],
    );
    refused(
        "merge_method: linear\nmodels: [{model: a}, {model: a}]\n",
        &["recipe.yml:2", "given twice"],
    );
    refused(
        &format!("merge_method: linear\n{MODELS}"),
        &["weight has no value", "tensor "],
    );
    refused(
        &format!("merge_method: linear\n{MODELS}parameters:\n  weight: much\n"),
        &["recipe.yml:4:11", "weight is \"much\"", "a number"],
    );
    refused(
        &format!("merge_method: linear\n{MODELS}parameters:\n  weight: 1\n  normalize: 2\n"),
        &["recipe.yml:5:14", "normalize is 2", "true or false"],
    );
    refused(
        &format!("merge_method: linear\n{MODELS}parameters:\n  weight: [1, {{value: 2}}]\n"),
        &["recipe.yml:4:12", "an entry of weight is 1"],
    );
}

#[test]
fn layer_ranges() {
    let slice = |range: &str| {
        format!(
            "merge_method: passthrough\nslices:\n  - sources:\n      - model: a\n        layer_range: {range}\n"
        )
    };
    for bad in [
        "[0]",
        "[2, 2]",
        "[3, 1]",
        "[-1, 2]",
        "[0, 1.5]",
        "[0, x]",
        "[0, 1, 2]",
    ] {
        refused(&slice(bad), &["recipe.yml:5:22", "layer_range"]);
    }
    refused(
        &slice("[0, 5]"),
        &["recipe.yml:4:9", "ends at 5", "a has 4 layers"],
    );
    refused(
        "
merge_method: linear
slices:
  - sources:
      - {model: a, layer_range: [0, 2]}
      - {model: b, layer_range: [0, 3]}
",
        &["recipe.yml:5:9", "3 layers", "2"],
    );
}

#[test]
fn dtypes_tokenizers_and_templates_that_cannot_be_shown() {
    let with =
        |line: &str| format!("merge_method: linear\n{MODELS}parameters: {{weight: 1}}\n{line}\n");
    refused(
        &with("dtype: int8"),
        &["recipe.yml:4:8", "\"int8\"", "bfloat16"],
    );
    refused(&with("tokenizer_source: union"), &["recipe.yml:4", "union"]);
    refused(
        &with("tokenizer: {pad_to_multiple_of: 64}"),
        &["recipe.yml:4", "pad_to_multiple_of"],
    );
    refused(&with("tokenizer: {}"), &["recipe.yml:4", "union"]);
    refused(
        &with("chat_template: chatml"),
        &["recipe.yml:4", "chat_template"],
    );
}

#[test]
fn models_that_are_not_there() {
    refused(
        "base: org/missing\n",
        &[
            "recipe.yml:1:7",
            "org/missing",
            "no directory",
            "--model org/missing=DIR",
        ],
    );
    refused("base: a+b+c\n", &["recipe.yml:1:7", "more than one +"]);
    refused("base: a@b@c\n", &["recipe.yml:1:7", "more than one @"]);
}

#[test]
fn hostile_documents_end_in_an_error() {
    let deep = "[".repeat(100_000);
    refused(&format!("base: {deep}"), &["recipe.yml:1"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..20 {
        let last = format!("*a{}, ", i - 1).repeat(10);
        bomb += &format!("a{i}: &a{i} [{last}]\n");
    }
    refused(&bomb, &["recipe.yml:", "more than 65536 values"]);
    refused(
        &format!("#{}", " ".repeat(1 << 20)),
        &["recipe.yml", "no recipe"],
    );
    refused("base: &x [*x]\n", &["recipe.yml:1"]);
}

#[test]
fn layers_without_end_end_in_an_error() {
    let workspace = workspace();
    let with = |layers: &str, name: &str| {
        let tensors = vec![bf16(name, &[2]), bf16("model.layers.0.w", &[2])];
        let config = format!("{{{layers}}}");
        workspace.write("x", &model(tensors).config(&config));
        error(
            &workspace,
            "merge_method: passthrough\nmodels: [{model: x}]\n",
        )
    };
    let many = with(r#""num_hidden_layers": 1000000000000"#, "model.layers.1.w");
    assert_names(
        &many,
        &["1000000000000 layers by its config.json", "name 2"],
    );
    let far = with("", "model.layers.18446744073709551615.w");
    assert_names(&far, &["18446744073709551615 layers", "at most 65536"]);
}

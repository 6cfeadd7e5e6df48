//! What is wrong with a recipe: file, line, what was found, what was expected.

use crate::common::checkpoint::bf16;
use crate::common::{Workspace, assert_names};
use crate::fixture::{dense, error, model, plan, workspace};

#[track_caller]
fn refused(recipe: &str, parts: &[&str]) {
    assert_names(&error(&workspace(), recipe.trim_start()), parts);
}

const MODELS: &str = "models: [{model: a}, {model: b}]\n";

#[test]
fn what_is_not_yaml_or_not_one_recipe() {
    refused("a: [1\n", &["recipe.yml:", "not valid YAML"]);
    refused("", &["recipe.yml", "empty"]);
    refused(
        "base: a\n---\nbase: b\n",
        &["recipe.yml:3:1", "without a name"],
    );
    refused("base: !!str a\n", &["recipe.yml:1", "tags"]);
    refused(
        "base: a\nbase: b\n",
        &["recipe.yml:2:1", "base", "given twice", "line 1"],
    );
    refused("- base\n", &["recipe.yml:1:1", "a list", "a map of keys"]);
}

#[test]
fn keys_that_nobody_knows() {
    refused(
        "base: a\nvieww: {}\n",
        &[
            "recipe.yml:2:1",
            "vieww is not a key",
            "models, slices",
            "did you mean view?",
        ],
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
        &[
            "recipe.yml:2:15",
            "\"lineer\"",
            "linear, ",
            "did you mean linear?",
        ],
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
        &format!("merge_method: linear\n{MODELS}parameters:\n  weight: much\n"),
        &["recipe.yml:4:11", "weight is \"much\"", "a finite number"],
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
fn a_parameter_without_a_value_is_named_with_line_and_model() {
    refused(
        &format!("merge_method: linear\n{MODELS}"),
        &[
            "recipe.yml:2:18",
            "the parameter weight has no value for the model a",
            "tensor model.embed_tokens.weight",
        ],
    );
    refused(
        "
merge_method: linear
models:
  - {model: a, parameters: {weight: 1}}
  - model: b
    parameters: {weight: [{filter: mlp, value: 1}]}
",
        &["recipe.yml:4:12", "for the model b", "without filter"],
    );
    refused(
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\nbase_model: b\n",
        &[
            "recipe.yml:3:13",
            "for the model b",
            "base_model takes part in linear",
        ],
    );
    refused(
        "merge_method: slerp\nmodels: [{model: a}, {model: b}]\nbase_model: a\n",
        &["recipe.yml:2:18", "tensor ", "the parameter t has no value"],
    );
}

#[test]
fn a_misspelt_parameter_is_named_with_the_nearest_one() {
    refused(
        "
merge_method: linear
models:
  - model: a
    parameters:
      wieght: 1
  - {model: b, parameters: {weight: 1}}
",
        &[
            "recipe.yml:5:15",
            "wieght is not a parameter of linear (did you mean weight?)",
            "for the model a",
        ],
    );
    // With a value from elsewhere it is a warning.
    let recipe = "merge_method: linear\nmodels: [{model: a, parameters: {wieght: 1}}]\nparameters: {weight: 1}\n";
    let plan = plan(&workspace(), recipe).unwrap();
    assert_names(
        &plan.report.warnings.join("\n"),
        &["recipe.yml:2:42", "wieght", "(did you mean weight?)"],
    );
}

/// A recipe whose line 5 sets a parameter of `model: a`; and what the method needs besides.
fn with_parameter(method: &str, parameter: &str) -> String {
    let more = match method {
        "linear" => "",
        "slerp" | "nearswap" => "models: [{model: b}]\nbase_model: a\n",
        _ => "base_model: b\n",
    };
    if more.starts_with("models") {
        format!("merge_method: {method}\n{more}parameters:\n  {parameter}\n")
    } else {
        format!(
            "merge_method: {method}\nmodels:\n  - model: a\n    parameters:\n      {parameter}\n{more}parameters: {{weight: 1}}\n"
        )
    }
}

#[test]
fn numbers_that_are_not_finite_or_out_of_range() {
    const FINITE: &str = "a finite number of float32";
    const SHARE: &str = "a number from 0 to 1";
    for (method, parameter, found, expected) in [
        ("linear", "weight: .nan", "weight is NaN", FINITE),
        ("linear", "weight: nan", "weight is NaN", FINITE),
        ("linear", "weight: -.inf", "weight is -inf", FINITE),
        ("linear", "weight: 1e39", "weight is 1", FINITE),
        ("linear", "weight: [0, .nan]", "weight is NaN", FINITE),
        (
            "linear",
            "weight: {filter: none, value: .inf}",
            "weight is inf",
            FINITE,
        ),
        ("slerp", "t: .nan", "t is NaN", FINITE),
        ("nearswap", "t: -0.1", "t is -0.1", "not negative"),
        ("ties", "density: 1.5", "density is 1.5", SHARE),
        ("ties", "density: -0.1", "density is -0.1", SHARE),
        ("dare_ties", "density: .nan", "density is NaN", SHARE),
        ("breadcrumbs", "gamma: 2", "gamma is 2", SHARE),
        ("ties", "lambda: .inf", "lambda is inf", FINITE),
        (
            "linear",
            "weight: '0.5'",
            "weight is \"0.5\"",
            "write it without quotes",
        ),
        ("linear", "weight: true", "weight is true", FINITE),
        ("linear", "weight: on", "weight is true", FINITE),
    ] {
        let parts = ["recipe.yml:5:", found, expected];
        refused(&with_parameter(method, parameter), &parts);
    }
}

#[test]
fn numbers_that_methods_have_a_meaning_for_are_taken() {
    for (method, parameter) in [
        ("linear", "weight: -0.5"),
        ("linear", "weight: 1e-4"),
        ("linear", "weight: 12"),
        ("slerp", "t: 1.5"),
        ("slerp", "t: -1"),
        ("nearswap", "t: 0"),
        ("ties", "density: 0"),
        ("ties", "density: 1"),
        ("ties", "lambda: -2"),
        ("breadcrumbs", "gamma: 0"),
        ("task_arithmetic", "weight: 30.5"),
    ] {
        plan(&workspace(), &with_parameter(method, parameter))
            .unwrap_or_else(|error| panic!("{method}, {parameter}: {error}"));
    }
}

#[test]
fn weights_that_together_make_no_numbers() {
    let linear = |weights: [&str; 2], more: &str| {
        let [a, b] = weights.map(|weight| format!("parameters: {{weight: {weight}}}"));
        format!("merge_method: linear\nmodels: [{{model: a, {a}}}, {{model: b, {b}}}]\n{more}")
    };
    for weights in [["1", "-1"], ["0", "0"], ["3e38", "3e38"]] {
        refused(
            &linear(weights, ""),
            &[
                "recipe.yml:1:15",
                "tensor model.",
                "add up to",
                "normalize: false",
            ],
        );
    }
    plan(
        &workspace(),
        &linear(["1", "-1"], "parameters: {normalize: false}\n"),
    )
    .unwrap();
    let family = |weight: &str, dtype: &str| {
        format!(
            "merge_method: task_arithmetic\nmodels: [{{model: a}}]\nbase_model: b\nparameters: {{weight: {weight}}}\ndtype: {dtype}\n"
        )
    };
    refused(
        &family("70000", "float16"),
        &["recipe.yml:1:15", "weight is 70000, which F16 cannot hold"],
    );
    plan(&workspace(), &family("70000", "bfloat16")).unwrap();
    refused(
        "merge_method: nuslerp\nmodels: [{model: a, parameters: {weight: 1e38}}, {model: b, parameters: {weight: -0.99999999e38}}]\ndtype: float16\n",
        &["recipe.yml:1:15", "F16 cannot hold"],
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
fn dtypes_tokenizers_and_templates_that_are_none() {
    let with =
        |line: &str| format!("merge_method: linear\n{MODELS}parameters: {{weight: 1}}\n{line}\n");
    refused(
        &with("dtype: int8"),
        &["recipe.yml:4:8", "\"int8\"", "bfloat16"],
    );
    for (line, parts) in [
        (
            "tokenizer: {pad_to_multiple_of: 0}",
            &["recipe.yml:4", "pad_to_multiple_of"][..],
        ),
        (
            "tokenizer: {sources: base}",
            &["recipe.yml:4", "sources", "source"],
        ),
        (
            "tokenizer: {tokens: {x: {force: true}}}",
            &["recipe.yml:4", "\"x\"", "source"],
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: one}}}}",
            &["recipe.yml:4", "zero or model_token"],
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: a}}}}",
            &["recipe.yml:4", "token or token_id"],
        ),
        ("chat_template: chatm", &["recipe.yml:4", "chatml", "Jinja"]),
        (
            "embed_slerp: true",
            &["recipe.yml:4", "embed_slerp", "not a key"],
        ),
    ] {
        refused(&with(line), parts);
    }
}

#[test]
fn documents_of_one_recipe_that_do_not_go_together() {
    let merge = |model: &str| format!("merge_method: passthrough\nmodels: [{{model: {model}}}]\n");
    for (documents, parts) in [
        (
            vec![merge("a"), merge("b")],
            &["recipe.yml:4", "without a name"][..],
        ),
        (
            vec![
                format!("name: x\n{}", merge("a")),
                format!("name: x\n{}", merge("b")),
            ],
            &["recipe.yml:5", "called x"],
        ),
        (
            vec![
                format!("name: x\n{}", merge("y")),
                format!("name: y\n{}", merge("x")),
            ],
            &["recipe.yml:3", "made of itself"],
        ),
        (
            vec![format!("name: x\n{}", merge("a")), "base: x\n".to_owned()],
            &["recipe.yml:5", "another document"],
        ),
    ] {
        refused(&documents.join("---\n"), parts);
    }
}

#[test]
fn documents_that_multiply_end_in_an_error() {
    let mut recipe = "name: d0\nbase: a\n---\nname: d1\nbase: a\n".to_owned();
    for i in 2..40 {
        recipe += &format!(
            "---\nname: d{i}\nmerge_method: linear\nparameters: {{weight: 1}}\nmodels: [{{model: d{}}}, {{model: d{}}}]\n",
            i - 1,
            i - 2
        );
    }
    refused(&recipe, &["more than 256 views"]);
}

#[test]
fn mixtures_that_cannot_be_made() {
    let workspace = Workspace::new();
    workspace.write("x", &dense(1));
    workspace.write("y", &dense(2));
    let mut biased = dense(3);
    biased.shards[0]
        .tensors
        .push(bf16("model.layers.0.self_attn.q_proj.bias", &[8]));
    workspace.write("biased", &biased);
    let of_other_type = dense(4).config(r#"{"model_type": "qwen3", "num_hidden_layers": 2}"#);
    workspace.write("other", &of_other_type);
    let with = |lines: &str, second: &str| {
        let recipe = format!(
            "base_model: x\nexperts: [{{source_model: x, positive_prompts: [t1]}}, {{source_model: {second}}}]\n{lines}\n"
        );
        error(&workspace, &recipe)
    };
    for (lines, second, parts) in [
        ("", "y", &["hidden", "runs no model", "gates"][..]),
        ("gate_mode: cheap", "y", &["recipe.yml:3", "cheap_embed"]),
        (
            "gate_mode: cheap_embed",
            "y",
            &["recipe.yml:2", "positive_prompts"],
        ),
        (
            "gate_mode: random\nexperts_per_token: 3",
            "y",
            &["recipe.yml:4", "from 1 to 2"],
        ),
        (
            "gate_mode: random\ngates: y",
            "y",
            &["recipe.yml:4", "gate_mode is random"],
        ),
        (
            "gate_mode: random\narchitecture: mamba",
            "y",
            &["recipe.yml:4", "Mixtral"],
        ),
        (
            "gate_mode: random\narchitecture: qwen",
            "y",
            &["needs a shared expert", "Qwen3"],
        ),
        ("gate_mode: random", "other", &["qwen3", "llama"]),
        (
            "gates: y",
            "y",
            &["no router", "model.layers.0.mlp.gate.weight"],
        ),
        (
            "gate_mode: random\nmerge_method: slerp",
            "y",
            &["recipe.yml:4", "moe"],
        ),
    ] {
        assert_names(&with(lines, second), parts);
    }
    let biased =
        "base_model: biased\ngate_mode: random\nexperts: [{source_model: x}, {source_model: y}]\n";
    assert_names(&error(&workspace, biased), &["q_proj.bias", "no place"]);
}

#[test]
fn models_that_are_not_there() {
    refused(
        "base: org/missing\n",
        &[
            "recipe.yml:1:7",
            "org/missing",
            "no directory",
            "model: org/missing=DIR",
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
        &["recipe.yml", "a recipe is shorter"],
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

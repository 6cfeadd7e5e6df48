//! What stands under `view`: adapters, names, and one dtype.

use std::collections::BTreeSet;

use ckptfs::ops::{
    Experts, ExpertsParams, LoraParams, LoraRequest, Operations, Precision, RuleSet,
};
use ckptfs::recipe::{Places, ViewRequest};
use safetensors::Dtype;

use crate::common::adapter::Adapter;
use crate::common::assert_names;
use crate::common::{Workspace, readback};
use crate::fixture::{error, shown, workspace, write};

/// Models, and the adapters `l` and `k` of them.
pub(crate) fn with_adapters() -> Workspace {
    let workspace = workspace();
    let adapter = |module: &str| Adapter::new(2, 4.0).linear(module, [6, 4], 2);
    adapter("model.layers.1.self_attn.q_proj").write(&workspace, "l");
    adapter("model.layers.2.mlp.down_proj").write(&workspace, "k");
    workspace
}

fn request(workspace: &Workspace, recipe: &str) -> ViewRequest {
    let path = write(workspace, recipe);
    ViewRequest::from_recipe(&path, &Places::default()).unwrap()
}

#[test]
fn adapters_are_paths_alone_or_with_a_weight_one_or_a_list() {
    let workspace = with_adapters();
    let lora = |name: &str, weight| LoraRequest {
        adapter: workspace.path().join(name).into(),
        weight,
    };
    for (text, expected) in [
        ("l", vec![lora("l", 1.0)]),
        ("{path: l}", vec![lora("l", 1.0)]),
        ("{path: l, weight: -2}", vec![lora("l", -2.0)]),
        ("{path: l, weight: 1e-2}", vec![lora("l", 0.01)]),
        (
            "[k, {path: l, weight: 0.25}]",
            vec![lora("k", 1.0), lora("l", 0.25)],
        ),
    ] {
        let request = request(&workspace, &format!("base: a\nview: {{lora: {text}}}\n"));
        assert_eq!(request.operations.lora.adapters, expected, "{text}");
    }
}

#[test]
fn adapters_of_a_recipe_are_merged_as_those_of_a_request() {
    let workspace = with_adapters();
    let recipe = "base: a\nview: {lora: [{path: l, weight: 0.5}, k]}\n";
    let lora = |name: &str, weight| LoraRequest {
        adapter: workspace.path().join(name).into(),
        weight,
    };
    let asked = ViewRequest {
        operations: Operations {
            lora: LoraParams {
                adapters: vec![lora("l", 0.5), lora("k", 1.0)],
                ..LoraParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new(workspace.path().join("a"))
    };
    let sources = request(&workspace, recipe).directories();
    let at = |name: &str| workspace.path().join(name);
    assert_eq!(sources, ["a", "l", "k"].map(at));
    let found = shown(&workspace, recipe);
    assert_eq!(found, readback::tensors(&asked.plan().unwrap()));
    let plain = shown(&workspace, "base: a\n");
    let changed: Vec<&String> = found.keys().filter(|n| found[*n] != plain[*n]).collect();
    let (q, down) = (
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
    );
    assert_eq!(changed, [q, down]);
}

#[test]
fn names_and_the_dtype_are_a_text_or_a_list() {
    let workspace = workspace();
    let one = request(
        &workspace,
        "base: a\nview: {rename: 'a=b', only: 'c.*', drop: 'd.*', dtype: f16}\n",
    );
    assert_eq!(one.operations.rename.rules, ["a=b"]);
    assert_eq!(one.operations.filter.only, ["c.*"]);
    assert_eq!(one.operations.filter.drop, ["d.*"]);
    assert_eq!(one.operations.dtype.to, Some(Precision::F16));
    let many = request(
        &workspace,
        "base: a\nview: {rename: ['a=b', '^c='], only: [x, y], drop: [u, v]}\n",
    );
    assert_eq!(many.operations.rename.rules, ["a=b", "^c="]);
    assert_eq!(many.operations.filter.only, ["x", "y"]);
    assert_eq!(many.operations.filter.drop, ["u", "v"]);
    assert_eq!(many.operations.dtype.to, None);
    for (name, precision) in [
        ("bf16", Precision::Bf16),
        ("bfloat16", Precision::Bf16),
        ("float16", Precision::F16),
        ("f32", Precision::F32),
        ("float32", Precision::F32),
    ] {
        let request = request(&workspace, &format!("base: a\nview: {{dtype: {name}}}\n"));
        assert_eq!(request.operations.dtype.to, Some(precision), "{name}");
    }
}

#[test]
fn patterns_are_of_the_names_that_rules_gave() {
    let workspace = workspace();
    let recipe = "
merge_method: linear
models: [{model: a}, {model: b}]
parameters: {weight: 1}
view:
  rename: ['^model[.]layers[.]([0-9]+)=m.$1', 'weight$=w']
  only: 'm[.][12][.].*'
  drop: ['.*layernorm.*', 'm[.]2[.]mlp.*']
  dtype: f32
";
    let shown = shown(&workspace, recipe);
    let names: BTreeSet<&str> = shown.keys().map(String::as_str).collect();
    let expected = [
        "m.1.mlp.down_proj.w",
        "m.1.self_attn.q_proj.w",
        "m.2.self_attn.q_proj.w",
    ];
    assert_eq!(names, expected.into());
    assert!(shown.values().all(|tensor| tensor.dtype == Dtype::F32));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let workspace = with_adapters();
    let refused = |lines: &str, parts: &[&str]| {
        let recipe = format!("base: a\nview:\n  repack: true\n{lines}");
        assert_names(&error(&workspace, &recipe), parts);
    };
    let bad_weight = "  lora:\n    path: l\n    weight: heavy\n";
    refused(bad_weight, &["recipe.yml:6:13", "\"heavy\"", "a number"]);
    let infinite = "  lora: {path: l, weight: .inf}\n";
    refused(infinite, &["recipe.yml:4", "weight", "a number"]);
    refused("  lora: {weight: 1}\n", &["recipe.yml:4", "path"]);
    let unknown = "  lora:\n    - path: l\n      scale: 1\n";
    refused(unknown, &["recipe.yml:6:7", "scale is not a key of lora"]);
    refused(
        "  lora:\n    - k\n    - z\n",
        &["recipe.yml:6:7", "model z"],
    );
    refused("  lora: k+l\n", &["recipe.yml:4:9", "model of the merge"]);
    refused("  patch: b+l\n", &["recipe.yml:4:10", "model of the merge"]);
    refused("  rename: [a=b, c]\n", &["recipe.yml:4:17", "rename: c:"]);
    refused("  rename: 'a(=b'\n", &["recipe.yml:4:11", "unclosed group"]);
    refused("  rename: 'a=$1'\n", &["recipe.yml:4:11", "group"]);
    refused("  rename: {a: b}\n", &["recipe.yml:4:11", "a map"]);
    refused("  only: 'a)('\n", &["recipe.yml:4:9", "unopened group"]);
    refused("  drop:\n    - a\n    - '*'\n", &["recipe.yml:6:7", "*"]);
    let pattern = "  fp8:\n    patterns: [a, 'b(']\n";
    refused(pattern, &["recipe.yml:5:19", "unclosed group"]);
    refused("  fp8: {rules: some}\n", &["recipe.yml:4:16", "official"]);
    refused("  dtype: int8\n", &["recipe.yml:4:10", "\"int8\"", "bf16"]);
    refused("  dtype: [bf16]\n", &["recipe.yml:4:10", "dtype"]);
    let base = error(&workspace, "base: a+l\n");
    assert_names(&base, &["recipe.yml:1:7", "model of the merge"]);
}

#[test]
fn rules_are_true_or_false_or_the_name_of_a_rule_set() {
    let workspace = workspace();
    let rules = |text: &str| {
        let recipe = format!("base: a\nview: {{fp8: {{rules: {text}, patterns: x}}}}\n");
        request(&workspace, &recipe).operations.quantize.rules
    };
    assert_eq!(rules("true"), Some(RuleSet::Exact));
    assert_eq!(rules("exact"), Some(RuleSet::Exact));
    assert_eq!(rules("official"), Some(RuleSet::Official));
    assert_eq!(rules("false"), None);
    let only = request(&workspace, "base: a\nview: {fp8: {rules: official}}\n");
    assert_eq!(only.operations.quantize.rules, Some(RuleSet::Official));
}

#[test]
fn experts_are_a_form_or_a_map_of_forms_to_true_or_scopes() {
    let workspace = workspace();
    let experts = |text: &str| {
        let recipe = format!("base: a\nview: {{experts: {text}}}\n");
        request(&workspace, &recipe).operations.experts
    };
    assert_eq!(experts("fuse"), ExpertsParams::all(Experts::Fuse));
    assert_eq!(experts("{fuse: true}"), ExpertsParams::all(Experts::Fuse));
    let scoped = |form, unfuse: &[&str], fuse: &[&str]| {
        let owned = |scopes: &[&str]| scopes.iter().map(|scope| (*scope).to_owned()).collect();
        ExpertsParams {
            form,
            unfuse: owned(unfuse),
            fuse: owned(fuse),
        }
    };
    for (text, expected) in [
        ("{unfuse: 'mtp.*'}", scoped(None, &["mtp.*"], &[])),
        (
            "{unfuse: [a, b], fuse: c}",
            scoped(None, &["a", "b"], &["c"]),
        ),
        (
            "{fuse: true, unfuse: a}",
            scoped(Some(Experts::Fuse), &["a"], &[]),
        ),
        (
            "{fuse: [true, b], unfuse: false}",
            scoped(Some(Experts::Fuse), &[], &["b"]),
        ),
        ("{fuse: 'true'}", scoped(None, &[], &["true"])),
    ] {
        assert_eq!(experts(text), expected, "{text}");
    }
    for (text, parts) in [
        ("{split: a}", &["recipe.yml:2:", "split"][..]),
        ("{fuse: 'a('}", &["recipe.yml:2:", "unclosed group"]),
        ("[fuse]", &["recipe.yml:2:", "experts"]),
        ("{fuse: {a: b}}", &["recipe.yml:2:", "fuse"]),
    ] {
        let text = error(&workspace, &format!("base: a\nview: {{experts: {text}}}\n"));
        assert_names(&text, parts);
    }
}

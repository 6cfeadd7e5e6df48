//! Views with other names: `--rename`.

use std::collections::BTreeMap;
use std::path::Path;

use ckptfs::ops::{Operations, RenameParams};
use ckptfs::recipe::{Plan, ViewRequest};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, small, tensor};
use crate::common::readback::{assert_new_shard, read_all, read_path, tensors};
use crate::common::{Workspace, assert_names, message};

fn request(base: &Path, rules: &[&str]) -> ViewRequest {
    ViewRequest {
        operations: Operations {
            rename: RenameParams {
                rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
}

fn plan(checkpoint: &Checkpoint, rules: &[&str]) -> ckptfs::Result<Plan> {
    let workspace = Workspace::new();
    let base = workspace.write("base", checkpoint);
    request(&base, rules).plan()
}

/// Asserts that `rules` call tensors of these names by the others.
fn assert_renames(rules: &[&str], names: &[(&str, &str)]) {
    let workspace = Workspace::new();
    let source = small(names.iter().map(|(old, _)| *old));
    let base = workspace.write("base", &Checkpoint::single(source.clone()));
    let plan = request(&base, rules).plan().unwrap();
    let expected: BTreeMap<String, TensorData> = source
        .into_iter()
        .zip(names)
        .map(|(tensor, (_, new))| {
            let name = (*new).to_owned();
            (name.clone(), TensorData { name, ..tensor })
        })
        .collect();
    assert_eq!(tensors(&plan), expected, "{rules:?}");
    let renamed = names.iter().filter(|(old, new)| old != new).count();
    assert_eq!(plan.report.count("renamed"), renamed, "{rules:?}");
    let index = read_path(&plan, "model.safetensors.index.json").unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let listed = index["weight_map"].as_object().unwrap().keys();
    let mut listed: Vec<&String> = listed.collect();
    listed.sort();
    assert_eq!(listed, expected.keys().collect::<Vec<_>>());
}

#[test]
fn every_match_anywhere_in_a_name_is_replaced() {
    assert_renames(&["a=x"], &[("banana", "bxnxnx"), ("b", "b")]);
    assert_renames(&["^a=x"], &[("banana", "banana"), ("aa", "xa")]);
    assert_renames(
        &[r"\.weight$=.w"],
        &[("a.weight", "a.w"), ("weight.b", "weight.b")],
    );
}

#[test]
fn groups_are_inserted_by_number_and_by_name() {
    assert_renames(
        &[r"layers\.([0-9]+)\.(?P<rest>.*)=blocks.${1}x.$rest"],
        &[("model.layers.10.mlp.w", "model.blocks.10x.mlp.w")],
    );
    assert_renames(&["(b)(c)?=$2$1$0$$"], &[("abc", "acbbc$"), ("ab", "abb$")]);
    assert_renames(&["b=$"], &[("abc", "a$c")]);
}

#[test]
fn rules_apply_in_order_to_what_the_ones_before_left() {
    assert_renames(&["a=b", "b=c"], &[("a.b", "c.c")]);
    assert_renames(&["b=c", "a=b"], &[("a.b", "b.c")]);
    // Names may be swapped: only the last ones must differ.
    assert_renames(&["^a$=t", "^b$=a", "^t$=b"], &[("a", "b"), ("b", "a")]);
}

#[test]
fn a_prefix_can_be_taken_away() {
    assert_renames(
        &[r"^model\.="],
        &[("model.a", "a"), ("b.model.a", "b.model.a")],
    );
}

#[test]
fn renamed_shards_keep_their_names_and_the_others_are_source_files() {
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", small(["a", "b"]))
        .shard("model-00002-of-00002.safetensors", small(["c"]));
    let base = workspace.write("base", &checkpoint);
    let plan = request(&base, &["b=x"]).plan().unwrap();
    let names: Vec<&str> = plan.shards.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors"
        ]
    );
    let whole: Vec<bool> = plan.shards.iter().map(|s| s.whole_file.is_some()).collect();
    assert_eq!(whole, [false, true]);
    assert_new_shard(names[0], &read_all(&plan)[Path::new(names[0])]);
    let computed = plan.shards.iter().flat_map(|s| &s.tensors);
    assert!(computed.into_iter().all(|tensor| !tensor.computed));
}

#[test]
fn tensors_of_extras_are_renamed_too_and_fp8_sees_the_new_names() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(small(["backbone.norm"])));
    let name = "backbone.layers.0.mlp.down_proj.weight";
    let extra = workspace.write("extra", &Checkpoint::single([bf16(name, &[128, 128])]));
    let request = request(&base, &["^backbone=model"]).with(|asked| {
        asked.patch.extras.push(extra.into());
        asked.quantize.rules = Some(ckptfs::ops::RuleSet::Exact);
    });
    let plan = request.plan().unwrap();
    let names: Vec<String> = tensors(&plan).into_keys().collect();
    let weight = "model.layers.0.mlp.down_proj.weight";
    assert_eq!(
        names,
        [weight, &format!("{weight}_scale_inv"), "model.norm"]
    );
}

#[test]
fn a_rule_that_matches_nothing_is_warned_of() {
    let plan = plan(&Checkpoint::single(small(["a"])), &["b=c", "a=d", "a=e"]).unwrap();
    let warnings = plan.report.warnings.join("\n");
    assert_names(
        &warnings,
        &["rename: b=c: it matches no", "rename: a=e: it matches no"],
    );
    assert_eq!(plan.report.warnings.len(), 2);
}

#[test]
fn two_tensors_of_one_name_are_an_error_that_names_all_three() {
    let checkpoint = Checkpoint::single(small(["x.first", "x.second", "x.third"]));
    let found = message(plan(&checkpoint, &["first|third=same"]));
    assert_names(
        &found,
        &["tensor x.third", "called x.same", "would x.first"],
    );
    let found = message(plan(&checkpoint, &["third=first"]));
    assert_names(&found, &["x.third", "called x.first", "rename one"]);
    // The way that the message tells.
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint);
    let mut request = request(&base, &["first=old", "third=first"]);
    request.operations.filter.drop = vec!["x.old".to_owned()];
    let names = tensors(&request.plan().unwrap()).into_keys();
    assert_eq!(names.collect::<Vec<_>>(), ["x.first", "x.second"]);
}

#[test]
fn a_weight_and_its_scales_are_not_parted() {
    let checkpoint = Checkpoint::single([
        tensor("a.weight", Dtype::F8_E4M3, &[2, 2], 1),
        tensor("a.weight_scale_inv", Dtype::F32, &[1, 1], 1),
    ]);
    let names = |rule: &str| -> Vec<String> {
        let plan = plan(&checkpoint, &[rule]).unwrap();
        tensors(&plan).into_keys().collect()
    };
    assert_eq!(names("^a=b"), ["b.weight", "b.weight_scale_inv"]);
    assert_eq!(
        names(r"\.weight((?:_scale_inv)?)$=.w${1}"),
        ["a.w", "a.w_scale_inv"]
    );
    for rule in [r"\.weight$=.w", "_scale_inv=_scale"] {
        let found = message(plan(&checkpoint, &[rule]));
        assert_names(&found, &["a.weight_scale_inv", "rename:", "weight"]);
    }
    // The expression that the message offers.
    assert_eq!(
        names(r"\.weight(_scale_inv)?$=.w${1}"),
        ["a.w", "a.w_scale_inv"]
    );
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let checkpoint = Checkpoint::single(small(["a"]));
    for (rule, parts) in [
        ("a", &["rename: a: ", "REGEX=REPLACEMENT"][..]),
        ("=b", &["nothing before"]),
        ("a=b=c", &["more than one =", "\\x3D"]),
        ("(=b", &["regular expression", "("]),
        ("a=$1", &["group 1"]),
        ("(a)=$1_x", &["group 1_x", "${1}x"]),
        ("(?P<n>a)=${m}", &["group m"]),
        ("a=", &["tensor a", "nothing of this name"]),
        ("a=__metadata__", &["__metadata__"]),
    ] {
        assert_names(&message(plan(&checkpoint, &[rule])), parts);
    }
    let long = format!("a={}", "x".repeat(1025));
    assert_names(
        &message(plan(&checkpoint, &[&long])),
        &["1025 bytes", "1024"],
    );
    let longer = format!("a={}", "x".repeat(16385));
    assert_names(
        &message(plan(&checkpoint, &[&longer])),
        &["16385 bytes", "16384"],
    );
}

#[test]
fn replacements_that_multiply_are_cut_short() {
    // Each `$0` is the whole name: 5000 times 1000 bytes, of each of many tensors, if it were made.
    let name = "x".repeat(1000);
    let checkpoint = Checkpoint::single(small([name.as_str()]));
    let rule = format!("x+={}", "$0".repeat(5000));
    assert_names(&message(plan(&checkpoint, &[&rule])), &["1024"]);
    let checkpoint = Checkpoint::single(small(["x".repeat(1025).as_str()]));
    assert_names(&message(plan(&checkpoint, &["x=y"])), &["1025 bytes"]);
    assert!(plan(&checkpoint, &["y=x"]).is_ok());
}

fn with_skips(quantization: &Value) -> Checkpoint {
    let names = [
        "model.a.proj.weight",
        "model.b.x.weight",
        "model.b.y.weight",
        "model.c.weight",
    ];
    let config = json!({"eps": 1e-6, "quantization_config": quantization});
    Checkpoint::single(small(names)).config(&config.to_string())
}

fn fp8_with_skips(skips: &[&str]) -> Value {
    json!({"quant_method": "fp8", "modules_to_not_convert": skips, "fmt": "e4m3"})
}

fn quantization_of(plan: &Plan) -> Value {
    let config = read_path(plan, "config.json").unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    config["quantization_config"].clone()
}

#[test]
fn modules_that_are_not_converted_follow_their_tensors() {
    let skips = ["model.a.proj", "model.b", "model.c", "lm_head"];
    let checkpoint = with_skips(&fp8_with_skips(&skips));
    let plan = plan(
        &checkpoint,
        &["^model=language_model", r"\.a\.=.attention."],
    )
    .unwrap();
    let expected = [
        "language_model.attention.proj",
        "language_model.b",
        "language_model.c",
        "lm_head",
    ];
    assert_eq!(quantization_of(&plan), fp8_with_skips(&expected));
    assert_eq!(plan.report.warnings, [""; 0]);
}

/// vLLM and SGLang read this list before `modules_to_not_convert`.
#[test]
fn ignored_layers_follow_a_renaming() {
    let quantization = |skips: &[&str]| json!({"quant_method": "fp8", "ignored_layers": skips});
    let checkpoint = with_skips(&quantization(&["model.a.proj", "model.c"]));
    let plan = plan(&checkpoint, &["^model=m"]).unwrap();
    assert_eq!(quantization_of(&plan), quantization(&["m.a.proj", "m.c"]));
    assert_eq!(plan.report.warnings, [""; 0]);
}

#[test]
fn a_skip_list_in_text_config_follows_too() {
    let quantization = fp8_with_skips(&["model.c"]);
    let config = json!({"text_config": {"quantization_config": quantization}});
    let checkpoint = Checkpoint::single(small(["model.c.weight"])).config(&config.to_string());
    let plan = plan(&checkpoint, &["model=m"]).unwrap();
    let config: Value = serde_json::from_slice(&read_path(&plan, "config.json").unwrap()).unwrap();
    assert_eq!(
        config,
        json!({"text_config": {"quantization_config": fp8_with_skips(&["m.c"])}})
    );
}

#[test]
fn modules_that_cannot_be_followed_are_warned_of() {
    let skips = ["model.b", "visual", "model.c"];
    let checkpoint = with_skips(&fp8_with_skips(&skips));
    let plan = plan(&checkpoint, &[r"b\.x\.weight=a.proj.bias"]).unwrap();
    assert_eq!(quantization_of(&plan), fp8_with_skips(&skips));
    let warnings = plan.report.warnings.join("\n");
    assert_names(
        &warnings,
        &[
            "modules_to_not_convert",
            "modules now that others are in too: model.b",
            "no tensor of this view belongs to: visual",
        ],
    );
}

#[test]
fn a_module_whose_tensors_part_is_named_by_its_new_modules() {
    let checkpoint = with_skips(&fp8_with_skips(&["model.b", "model.c"]));
    let plan = plan(&checkpoint, &[r"b\.x=z.x"]).unwrap();
    let expected = ["model.b.y", "model.z.x", "model.c"];
    let mut found = quantization_of(&plan);
    let list = found["modules_to_not_convert"].as_array_mut().unwrap();
    list[..2].sort_by_key(Value::to_string);
    assert_eq!(found, fp8_with_skips(&expected));
    assert_eq!(plan.report.warnings, [""; 0]);
}

#[test]
fn what_else_another_method_says_of_modules_is_left_and_warned_of() {
    let rules = |modules: &str| json!({"-:.*model[.]c.*": {}, "modules": [modules]});
    let quantization = json!({"quant_method": "gptq", "bits": 4, "dynamic": rules("x")});
    let left = plan(&with_skips(&quantization), &["^model=m"]).unwrap();
    assert_eq!(quantization_of(&left), quantization);
    let warnings = left.report.warnings.join("\n");
    assert_names(&warnings, &["gptq", "old names", "dynamic"]);
    let lists = json!({"quant_method": "awq", "modules_to_not_convert": ["model.c"]});
    let plan = plan(&with_skips(&lists), &["^model=m"]).unwrap();
    let followed = json!({"quant_method": "awq", "modules_to_not_convert": ["m.c"]});
    assert_eq!(quantization_of(&plan), followed);
    assert_eq!(plan.report.warnings, [""; 0]);
}

#[test]
fn a_config_that_cannot_be_read_is_shown_and_warned_of() {
    let checkpoint = Checkpoint::single(small(["a"])).config(r#"{"x": NaN}"#);
    let plan = plan(&checkpoint, &["a=b"]).unwrap();
    assert_eq!(read_path(&plan, "config.json").unwrap(), br#"{"x": NaN}"#);
    assert_names(
        &plan.report.warnings.join("\n"),
        &["config.json cannot be read"],
    );
}

proptest! {
    /// Against replacement written out by hand, for expressions that are plain text.
    #[test]
    fn plain_texts_are_replaced_as_by_hand(
        names in prop::collection::btree_set("[ab.]{1,8}", 1..6),
        search in "[ab]{1,2}",
        replacement in "[abc]{0,3}",
    ) {
        let expected: Vec<String> = names.iter().map(|n| n.replace(&search, &replacement)).collect();
        let checkpoint = Checkpoint::single(small(names.iter().map(String::as_str)));
        let result = plan(&checkpoint, &[&format!("{search}={replacement}")]);
        let mut unique = expected.clone();
        unique.sort();
        unique.dedup();
        if unique.len() < expected.len() || unique.iter().any(String::is_empty) {
            prop_assert!(result.is_err());
        } else {
            let found: Vec<String> = tensors(&result.unwrap()).into_keys().collect();
            prop_assert_eq!(found, unique);
        }
    }
}

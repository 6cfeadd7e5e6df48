//! Filters, adapters, grafts and comparisons of bases whose weights are packed.

use std::path::PathBuf;

use ckptfs::ops::{CastRule, GraftRequest, LoraRequest, Precision};
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::adapter::Adapter;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names, materialized, message};
use crate::definition::{self, Scheme};
use crate::others::{config, shown_config, words};

fn module(name: &str) -> String {
    format!("model.layers.0.mlp.{name}_proj")
}

/// An AWQ weight of 8 rows and 128 columns.
fn awq(name: &str) -> Vec<TensorData> {
    let named = |suffix: &str| format!("{}.{suffix}", module(name));
    vec![
        words(&named("qweight"), [128, 1], &[0x1234_5678; 128]),
        words(&named("qzeros"), [1, 1], &[0x8888_8888]),
        of_values(&named("scales"), Dtype::F16, &[1, 8], &[0.5; 8]),
    ]
}

fn declared(version: &str) -> Value {
    json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": version})
}

fn base(workspace: &Workspace, version: &str) -> PathBuf {
    let mut stored = [awq("up"), awq("down")].concat();
    stored.push(bf16("model.norm.weight", &[8]));
    let checkpoint = Checkpoint::single(stored).config(&config(&declared(version)));
    workspace.write(version, &checkpoint)
}

fn filtered(base: &PathBuf, only: &[&str], drop: &[&str], to: Option<Precision>) -> ViewRequest {
    let texts = |patterns: &[&str]| patterns.iter().map(|text| (*text).to_owned()).collect();
    ViewRequest::new(base).with(|asked| {
        asked.filter.only = texts(only);
        asked.filter.drop = texts(drop);
        asked.dtype.to = to;
    })
}

#[test]
fn packed_weights_are_left_out_by_the_name_of_their_module_and_never_in_part() {
    let workspace = Workspace::new();
    let base = base(&workspace, "gemm");
    let up = format!("{}.weight", module("up"));
    for (only, drop) in [
        (vec![r".*\.up_proj\.weight"], vec![]),
        (vec![], vec![r".*\.down_proj\.weight", ".*norm.*"]),
        (vec![r".*\.up_proj\.q.*", r".*\.up_proj\.scales"], vec![]),
    ] {
        let names = |to| -> Vec<String> {
            let plan = filtered(&base, &only, &drop, to).plan().unwrap();
            assert!(
                plan.report.warnings.is_empty(),
                "{:?}",
                plan.report.warnings
            );
            tensors(&plan).into_keys().collect()
        };
        assert_eq!(names(Some(Precision::Bf16)), [&*up]);
        let parts = ["qweight", "qzeros", "scales"].map(|part| format!("{}.{part}", module("up")));
        assert_eq!(names(None), parts);
    }
    let part = filtered(&base, &[], &[r".*\.up_proj\.scales"], None).plan();
    assert_names(&message(part), &["up_proj.scales", "up_proj.qweight", &up]);
}

#[test]
fn what_is_not_asked_for_does_not_have_to_be_readable() {
    let workspace = Workspace::new();
    let base = base(&workspace, "marlin");
    let all = filtered(&base, &[], &[], Some(Precision::Bf16)).plan();
    assert_names(&message(all), &["awq", "version", "marlin"]);
    let plan = filtered(&base, &[".*norm.*"], &[], Some(Precision::F32))
        .plan()
        .unwrap();
    assert_eq!(tensors(&plan)["model.norm.weight"].dtype, Dtype::F32);
    assert!(shown_config(&plan).get("quantization_config").is_none());
}

#[test]
fn scales_of_packed_weights_are_not_cast() {
    let workspace = Workspace::new();
    let base = base(&workspace, "gemm");
    let cast = |names: &str| {
        let rule = CastRule {
            names: names.to_owned(),
            to: Precision::F32,
        };
        ViewRequest::new(&base)
            .with(|asked| asked.cast.rules = vec![rule])
            .plan()
    };
    let found = tensors(&cast(".*(norm|scales).*").unwrap());
    assert_eq!(found["model.norm.weight"].dtype, Dtype::F32);
    assert_eq!(found[&format!("{}.scales", module("up"))].dtype, Dtype::F16);
    let refused = message(cast(r".*\.up_proj\.weight"));
    assert_names(
        &refused,
        &["up_proj.qweight", "only with its scales", "dtype"],
    );
}

#[test]
fn a_graft_on_packed_weights_needs_their_numbers() {
    let workspace = Workspace::new();
    let base = base(&workspace, "gemm");
    let up = format!("{}.weight", module("up"));
    let numbers = tensor(&up, Dtype::BF16, &[8, 128], 3);
    let other = workspace.write(
        "other",
        &Checkpoint::single([numbers.clone(), bf16("model.norm.weight", &[8])]),
    );
    let graft = |names: &str, to| {
        let graft = GraftRequest {
            source: other.clone().into(),
            names: Some(names.to_owned()),
        };
        ViewRequest::new(&base).with(|asked| {
            asked.graft.grafts = vec![graft];
            asked.dtype.to = to;
        })
    };
    let refused = message(graft(r".*up_proj.*", None).plan());
    assert_names(&refused, &[&up, "packed codes", "dtype: bf16"]);
    let found = tensors(&graft(r".*up_proj.*", Some(Precision::Bf16)).plan().unwrap());
    assert!(found[&up] == numbers);
    assert_eq!(found.len(), 3);
    let plain = tensors(&graft(".*norm.*", None).plan().unwrap());
    assert!(plain.contains_key(&format!("{}.qweight", module("up"))));
}

#[test]
fn an_adapter_is_merged_into_the_numbers_of_packed_weights() {
    let workspace = Workspace::new();
    let base = base(&workspace, "gemm");
    let dense = materialized(
        &workspace,
        "dense",
        &filtered(&base, &[], &[], Some(Precision::Bf16)),
    );
    let adapter = Adapter::new(2, 4.0).linear(&module("up"), [8, 128], 2);
    let adapter = adapter.write(&workspace, "adapter");
    let merged = |base: &PathBuf, to| {
        let lora = LoraRequest {
            adapter: (&adapter).into(),
            weight: 1.0,
        };
        ViewRequest::new(base).with(|asked| {
            asked.lora.adapters = vec![lora];
            asked.dtype.to = to;
        })
    };
    let expected = tensors(&merged(&dense, None).plan().unwrap());
    let found = tensors(&merged(&base, Some(Precision::Bf16)).plan().unwrap());
    assert_eq!(found, expected);
    let refused = message(merged(&base, None).plan());
    assert_names(&refused, &["up_proj.weight", "packed codes", "dtype: bf16"]);
}

#[test]
fn an_unreadable_weight_may_be_left_out_where_an_adapter_is_merged_into_others() {
    let workspace = Workspace::new();
    let mut stored = [awq("up"), awq("down")].concat();
    // Another group size than the one that is declared.
    stored[4] = words(&format!("{}.qzeros", module("down")), [2, 1], &[0; 2]);
    let checkpoint = Checkpoint::single(stored).config(&config(&declared("gemm")));
    let base = workspace.write("base", &checkpoint);
    let adapter = Adapter::new(2, 4.0).linear(&module("up"), [8, 128], 2);
    let adapter = adapter.write(&workspace, "adapter");
    let request = |drop: &[&str]| {
        let lora = LoraRequest {
            adapter: (&adapter).into(),
            weight: 1.0,
        };
        filtered(&base, &[], drop, Some(Precision::Bf16))
            .with(|asked| asked.lora.adapters = vec![lora])
    };
    assert_names(&message(request(&[]).plan()), &["down_proj", "zero points"]);
    let found = tensors(&request(&[".*down.*"]).plan().unwrap());
    assert_eq!(
        found.into_keys().collect::<Vec<_>>(),
        [format!("{}.weight", module("up"))]
    );
}

#[test]
fn numbers_of_weights_are_compared_with_their_packed_codes() {
    let workspace = Workspace::new();
    let names = ["up", "down"].map(|name| format!("{}.weight", module(name)));
    let weights = names.map(|name| tensor(&name, Dtype::BF16, &[16, 128], name.len() as u64));
    let original = workspace.write("original", &Checkpoint::single(weights.clone()));
    let packed = weights
        .iter()
        .flat_map(|weight| definition::tensors(weight, Scheme::Int4));
    let declared = json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": true}}}});
    let quantized = workspace.write(
        "packed",
        &Checkpoint::single(packed).config(&config(&declared)),
    );
    let plans = [original, quantized].map(|path| ViewRequest::new(&path).plan().unwrap());
    let [a, b] = &plans;
    let found = ckptfs::diff::diff([a, b], true, 1, &()).unwrap();
    for weight in &weights {
        let changed = found
            .different
            .iter()
            .find(|tensor| *tensor.name == *weight.name)
            .unwrap();
        let values = changed.values.unwrap();
        let numbers = definition::numbers(weight, Scheme::Int4, Dtype::F32);
        let [of_a, of_b] = [weight, &numbers]
            .map(|tensor| crate::common::values::decode(tensor.dtype, &tensor.bytes));
        let errors = of_a
            .iter()
            .zip(&of_b)
            .map(|(a, b)| f64::from(*a) - f64::from(*b));
        let largest = errors
            .clone()
            .fold(0.0, |most, error| error.abs().max(most));
        assert_eq!(values.elements, 16 * 128);
        assert_eq!(values.max_abs, largest);
        let l2 = errors.map(|error| error * error).sum::<f64>().sqrt();
        assert!((values.l2 - l2).abs() <= 1e-12 * l2);
    }
}

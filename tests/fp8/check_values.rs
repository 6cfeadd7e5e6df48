//! `ckptfs plan --check-values`: every NaN and infinity that a view would have to quantize.

use std::process::Output;

use ckptfs::inspect::{NonFiniteValues, SHOWN_PLACES, check_values, quantized_tensors};
use ckptfs::ops::QuantizeParams;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::command::{ckptfs, text};
use crate::common::readback::reader;
use crate::common::values::Random;
use crate::common::{Workspace, assert_names, plan_fp8};

/// What is found in a checkpoint of `tensors`, of which those called `bad…` are quantized.
fn check(tensors: Vec<TensorData>) -> Vec<NonFiniteValues> {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(tensors));
    let request = QuantizeParams {
        patterns: vec!["bad.*".to_owned()],
        ..QuantizeParams::default()
    };
    let plan = plan_fp8(&base, request).unwrap();
    check_values(&reader(&plan), &quantized_tensors(&plan), 2, &()).unwrap()
}

#[test]
fn planted_values_are_all_found_and_nothing_else() {
    let shapes: [&[usize]; 4] = [&[1, 1], &[300, 2000], &[4, 150, 130], &[2000, 1]];
    let mut random = Random::new(11);
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        for shape in shapes {
            let (rows_and_more, columns) = shape.split_at(shape.len() - 1);
            let elements = rows_and_more.iter().product::<usize>() * columns[0];
            let mut values = vec![1.5f32; elements];
            let mut planted = Vec::new();
            for _ in 0..1 + random.below(20) {
                let at = random.below(elements);
                values[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][random.below(3)];
                planted.push(at);
            }
            planted.sort_unstable();
            planted.dedup();

            let found = check(vec![of_values("bad", dtype, shape, &values)]);
            let [found] = found.as_slice() else {
                panic!("{found:?}");
            };
            let count =
                |is: fn(f32) -> bool| planted.iter().filter(|at| is(values[**at])).count() as u64;
            assert_eq!(found.tensor, "bad");
            assert_eq!(found.nan, count(f32::is_nan));
            assert_eq!(found.positive_infinity, count(|x| x == f32::INFINITY));
            assert_eq!(found.negative_infinity, count(|x| x == f32::NEG_INFINITY));
            assert_eq!(found.total(), planted.len() as u64);
            let shown = &planted[..planted.len().min(SHOWN_PLACES)];
            assert_eq!(found.places.len(), shown.len());
            for (place, at) in found.places.iter().zip(shown) {
                let element = place.row as usize * columns[0] + place.column as usize;
                assert_eq!(element, *at);
                assert!((place.column as usize) < columns[0]);
                assert!(place.value == values[*at] || place.value.is_nan() && values[*at].is_nan());
            }
        }
    }
}

#[test]
fn the_largest_finite_values_are_not_reported() {
    for (dtype, largest) in [
        (Dtype::BF16, f32::from_bits(0x7f7f_0000)),
        (Dtype::F16, 65504.0),
        (Dtype::F32, f32::MAX),
    ] {
        let values = [largest, -largest, 0.0, -0.0, f32::MIN_POSITIVE, 1e-44];
        assert_eq!(check(vec![of_values("bad", dtype, &[2, 3], &values)]), []);
    }
}

#[test]
fn every_nan_of_every_sign_and_payload_is_found() {
    let nans = [0x7f81u16, 0xff81, 0x7fff, 0xffff, 0x7fc0];
    let bytes = nans.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let found = check(vec![TensorData::new("bad", Dtype::BF16, &[1, 5], bytes)]);
    assert_eq!((found[0].nan, found[0].total()), (5, 5));
}

#[test]
fn tensors_are_reported_in_order_and_kept_ones_are_not_read() {
    let nan = |name: &str| of_values(name, Dtype::F32, &[1, 2], &[f32::NAN, 0.0]);
    let found = check(vec![
        nan("kept"),
        nan("bad.b"),
        bf16("bad.c", &[130, 130]),
        nan("bad.a"),
        tensor("also_kept", Dtype::I64, &[3], 1),
    ]);
    let names: Vec<_> = found.iter().map(|found| found.tensor.as_str()).collect();
    assert_eq!(names, ["bad.a", "bad.b"]);
}

/// A workspace with `clean`, and `base` that has NaN and infinities in one layer.
fn workspace() -> Workspace {
    let name = |i: usize| format!("model.layers.{i}.mlp.up_proj.weight");
    let mut values = vec![0.5; 130 * 20];
    values[3] = f32::INFINITY;
    values[129 * 20 + 19] = f32::NEG_INFINITY;
    values[40..55].fill(f32::NAN);
    let good = bf16(&name(0), &[128, 128]);
    let bad = of_values(&name(1), Dtype::BF16, &[130, 20], &values);
    let workspace = Workspace::new();
    workspace.write("clean", &Checkpoint::single([good.clone()]));
    workspace.write("base", &Checkpoint::single([good, bad]));
    workspace
}

fn run(workspace: &Workspace, flags: &str) -> Output {
    ckptfs(workspace, &format!("plan {flags}"))
}

#[test]
fn the_report_follows_the_plan_and_the_exit_code_is_1() {
    let workspace = workspace();
    let plan = run(&workspace, "--base base --fp8");
    let output = run(&workspace, "--base base --fp8 --check-values");
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout)
        .strip_prefix(text(&plan.stdout))
        .unwrap();
    let report = report.strip_prefix("\nvalues checked").unwrap();
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines[0], " in 2 tensors: 1 cannot be quantized");
    assert_eq!(
        lines[1],
        "model.layers.1.mlp.up_proj.weight: 15 NaN, 1 inf, 1 -inf"
    );
    assert_eq!(lines[2], "  inf at row 0, column 3");
    assert_eq!(lines[3], "  NaN at row 2, column 0");
    assert_eq!(lines[1 + SHOWN_PLACES], "  NaN at row 2, column 8");
    assert_eq!(lines[2 + SHOWN_PLACES], "  and 7 more");
    assert_eq!(lines.len(), 3 + SHOWN_PLACES);
    assert_names(
        text(&output.stderr),
        &["1 of 2 tensors", "cannot be read whole"],
    );
}

#[test]
fn json_has_the_report_beside_the_plan() {
    let output = run(&workspace(), "--base base --fp8 --check-values --json");
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["quantized"], 2);
    let found = json["non_finite"].as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["tensor"], "model.layers.1.mlp.up_proj.weight");
    let counts = ["nan", "positive_infinity", "negative_infinity"].map(|key| &found[0][key]);
    assert_eq!(counts, [15, 1, 1]);
    let places = found[0]["places"].as_array().unwrap();
    assert_eq!(places.len(), SHOWN_PLACES);
    let first = [
        json!({"row": 0, "column": 3, "value": "inf"}),
        json!({"row": 2, "column": 0, "value": "NaN"}),
    ];
    assert_eq!(places[..2], first);
}

#[test]
fn a_clean_source_reports_no_tensor_and_the_exit_code_is_0() {
    let workspace = workspace();
    let output = run(&workspace, "--base clean --fp8 --check-values");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    assert_names(text(&output.stdout), &["in 1 tensor: all can be quantized"]);
    let output = run(&workspace, "--base clean --fp8 --check-values --json");
    assert_eq!(output.status.code(), Some(0));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["non_finite"], json!([]));
}

#[test]
fn a_plan_without_the_check_reads_no_values() {
    let workspace = workspace();
    let output = run(&workspace, "--base base --fp8 --json");
    assert_eq!(output.status.code(), Some(0));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json.get("non_finite").is_none());
}

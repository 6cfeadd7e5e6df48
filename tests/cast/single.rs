//! `--cast`: single tensors in other dtypes.

use std::collections::BTreeMap;

use ckptfs::ops::{CastParams, CastRule, DtypeParams, Operations, Precision, QuantizeParams};
use ckptfs::recipe::{Plan, ViewRequest};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::oracle::casting;
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names, message};
use crate::fixture::*;

fn asked(rules: &[(&str, Precision)], dtype: Option<Precision>) -> Operations {
    let rules = rules.iter().map(|&(names, to)| CastRule {
        names: names.to_owned(),
        to,
    });
    Operations {
        cast: CastParams {
            rules: rules.collect(),
        },
        dtype: DtypeParams { to: dtype },
        ..Operations::default()
    }
}

fn plan_asked(base: &std::path::Path, operations: Operations) -> ckptfs::Result<Plan> {
    let request = ViewRequest {
        operations,
        ..ViewRequest::new(base)
    };
    request.plan()
}

/// `tensor` in `dtype`, by the naive oracle.
fn given_in(tensor: &TensorData, dtype: Dtype) -> TensorData {
    if tensor.dtype == dtype {
        tensor.clone()
    } else {
        casting::tensor_of(tensor, dtype, &casting::cast(tensor, dtype))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_tensor_has_the_dtype_of_the_first_rule_that_matches_it(
        dtypes in prop::collection::vec(0usize..4, 1..6),
        rules in prop::collection::vec((0usize..6, 0usize..3), 0..4),
        everywhere in prop::option::of(0usize..3),
    ) {
        const SOURCES: [Dtype; 4] = [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::I32];
        const NAMES: [&str; 6] = [".*", "t0", "t[12]", "t.*", "nothing", "t3|t4"];
        let all: Vec<TensorData> = dtypes
            .iter()
            .enumerate()
            .map(|(i, dtype)| tensor(&format!("t{i}"), SOURCES[*dtype], &[3, 5], i as u64))
            .collect();
        let matches = |rule: usize, name: usize| match rule {
            0 | 3 => true,
            1 => name == 0,
            2 => name == 1 || name == 2,
            5 => name == 3 || name == 4,
            _ => false,
        };
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single(all.clone()));
        let given: Vec<(&str, Precision)> =
            rules.iter().map(|&(names, to)| (NAMES[names], TARGETS[to].0)).collect();
        let found = plan_asked(&base, asked(&given, everywhere.map(|to| TARGETS[to].0))).unwrap();
        let expected = all.iter().enumerate().map(|(i, tensor)| {
            let rule = rules.iter().find(|(names, _)| matches(*names, i)).map(|(_, to)| *to);
            match rule.or(everywhere) {
                Some(to) if tensor.dtype != Dtype::I32 => given_in(tensor, TARGETS[to].1),
                _ => tensor.clone(),
            }
        });
        prop_assert!(tensors(&found) == by_name(expected));
    }
}

#[test]
fn what_is_cast_is_quantized_as_it_is_then() {
    let name = "model.layers.0.mlp.up_proj.weight";
    let weight = tensor(name, Dtype::F32, &[128, 128], 3);
    let workspace = Workspace::new();
    let write = |directory: &str, weight: &TensorData| {
        let checkpoint = Checkpoint::single([weight.clone()]).config("{}");
        workspace.write(directory, &checkpoint)
    };
    let quantized = |base: &std::path::Path, rules: &[(&str, Precision)]| {
        let operations = Operations {
            quantize: QuantizeParams::by_rules(),
            ..asked(rules, None)
        };
        tensors(&plan_asked(base, operations).unwrap())
    };
    let found = quantized(&write("base", &weight), &[(".*", Precision::Bf16)]);
    let expected = quantized(&write("cast", &given_in(&weight, Dtype::BF16)), &[]);
    assert!(found == expected);
}

#[test]
fn codes_are_refused_alone_and_decoded_straight_to_their_dtype_with_dtype() {
    let weights = ["x.weight", "y.weight"]
        .map(|name| quantized(name, Dtype::F8_E4M3, Dtype::F32, &[40, 30], [16, 16]));
    let workspace = Workspace::new();
    let stored = weights.iter().flat_map(Quantized::both);
    let checkpoint = Checkpoint::single(stored).config(&fp8_config([16, 16]));
    let base = workspace.write("base", &checkpoint);
    let rules = [("x[.]weight", Precision::F32)];
    let text = message(plan_asked(&base, asked(&rules, None)));
    assert_names(&text, &["x.weight", "F8_E4M3", "cast:", "use dtype"]);

    let plan = plan_asked(&base, asked(&rules, Some(Precision::Bf16))).unwrap();
    let [x, y] = &weights;
    let expected: BTreeMap<_, _> = by_name([x.dequantized(Dtype::F32), y.dequantized(Dtype::BF16)]);
    assert!(tensors(&plan) == expected);
    assert_eq!(config_of(&plan)["torch_dtype"], "bfloat16");
}

#[test]
fn rules_without_effect_and_rules_that_are_none_are_told() {
    let workspace = Workspace::new();
    let all = [
        tensor("a.weight", Dtype::BF16, &[4], 1),
        tensor("ids", Dtype::I64, &[4], 1),
    ];
    let base = workspace.write("base", &Checkpoint::single(all));
    let rules = [("weight", Precision::F32), ("ids", Precision::F16)];
    let plan = plan_asked(&base, asked(&rules, None)).unwrap();
    let [unmatched, whole] = &plan.report.warnings[..] else {
        panic!("{:?}", plan.report.warnings);
    };
    assert_names(unmatched, &["cast: weight", "did you mean"]);
    assert_names(whole, &["cast: ids=f16", "not floating point"]);

    for (text, expected) in [
        ("a.weight", "REGEX=DTYPE"),
        ("a.weight=fp4", "fp4"),
        ("(=f32", "regular expression"),
    ] {
        let mut operations = Operations::default();
        let problem = operations
            .set("cast", ckptfs::ops::Value::Text(text.to_owned()))
            .unwrap_err();
        assert_names(&problem.to_string(), &[expected]);
    }
    // A pattern may have a = itself.
    let mut operations = Operations::default();
    operations
        .set("cast", ckptfs::ops::Value::Text("a=b=BF16".to_owned()))
        .unwrap();
    let rule = CastRule {
        names: "a=b".to_owned(),
        to: Precision::Bf16,
    };
    assert_eq!(operations.cast.rules, [rule]);
}

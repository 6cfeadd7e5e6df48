//! What views hold, and what `dtype` makes of it again, against the scalar definitions.

use std::collections::BTreeMap;

use ckptfs::ops::Precision;
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, of_values, tensor};
use crate::common::readback::{read_file, reader, tensors};
use crate::common::{Workspace, materialized};
use crate::definition::{self, SCHEMES, Scheme};
use crate::{in_dtype, plan, request};

const DTYPES: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];
const TARGETS: [(Precision, Dtype); 3] = [
    (Precision::Bf16, Dtype::BF16),
    (Precision::F16, Dtype::F16),
    (Precision::F32, Dtype::F32),
];

fn assert_quantized(weights: &[TensorData], scheme: Scheme) {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(weights.to_vec()));
    let request = request(&base, scheme);
    let plan = request.plan().unwrap();
    let expected = weights
        .iter()
        .flat_map(|weight| definition::tensors(weight, scheme));
    let expected: BTreeMap<String, TensorData> = expected
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    let found = tensors(&plan);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, expected) in &expected {
        let found = &found[name];
        assert_eq!(
            (found.dtype, &found.shape),
            (expected.dtype, &expected.shape),
            "{name}"
        );
        let differs = |at: &usize| found.bytes[*at] != expected.bytes[*at];
        if let Some(at) = (0..expected.bytes.len()).find(differs) {
            let (found, expected) = (found.bytes[at], expected.bytes[at]);
            panic!("{scheme:?}, {name}: byte {at} is {found:#x}, not {expected:#x}");
        }
    }

    let written = materialized(&workspace, "written", &request);
    for (to, dtype) in TARGETS {
        let back = tensors(&in_dtype(&written, to).unwrap());
        assert_eq!(back.len(), weights.len());
        for weight in weights {
            let expected = definition::numbers(weight, scheme, dtype);
            assert!(
                back[&weight.name] == expected,
                "{scheme:?}, {weight:?} in {dtype:?}"
            );
        }
    }
}

#[test]
fn numbers_of_every_magnitude_are_quantized_as_defined_and_read_back() {
    for scheme in SCHEMES {
        let weights: Vec<TensorData> = (0..12)
            .map(|seed| {
                let name = format!("model.layers.{seed}.mlp.down_proj.weight");
                tensor(&name, DTYPES[seed as usize % 3], &[16, 256], seed)
            })
            .collect();
        assert_quantized(&weights, scheme);
    }
}

#[test]
fn ties_and_the_ends_of_the_range_are_rounded_as_defined() {
    for scheme in SCHEMES {
        for dtype in DTYPES {
            // Multiples of a half and a quarter of the scale that the largest number makes.
            let values = (0..8 * 256).map(|i| match i % 128 {
                0 => 448.0,
                1 => -448.0 * (i / 256 % 2) as f32,
                i => (i as f32 - 64.0) * 448.0 / 4.0 / 7.5 / 4.0,
            });
            let values: Vec<f32> = values.collect();
            let weight = of_values("a.weight", dtype, &[8, 256], &values);
            assert_quantized(&[weight], scheme);
        }
    }
}

#[test]
fn rows_of_zeros_and_of_numbers_too_small_for_a_scale_have_a_scale_that_divides() {
    for scheme in SCHEMES {
        for (dtype, small) in [
            (Dtype::BF16, 1e-40),
            (Dtype::F16, 6e-8),
            (Dtype::F32, 1e-44),
        ] {
            let mut values = vec![0.0; 8 * 128];
            values[128..256].fill(small);
            values[256..384].fill(-small);
            values[400] = 1.0;
            values[512..640].fill(-0.0);
            let weight = of_values("a.weight", dtype, &[8, 128], &values);
            assert_quantized(&[weight], scheme);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape_is_quantized_as_defined_and_any_range_reads_alike(
        scheme in proptest::sample::select(SCHEMES.to_vec()),
        dtype in proptest::sample::select(DTYPES.to_vec()),
        rows in 1usize..40,
        columns in 1usize..5,
        odd in 0usize..40,
        seed in any::<u64>(),
        cut in 0.0f64..1.0,
    ) {
        // Only whole groups and whole packed zero points can be quantized to integers of 4 bits.
        let (rows, columns) = match scheme {
            Scheme::Int4 | Scheme::Int4Of32 => (rows, columns * 128),
            Scheme::Int4Asymmetric => (rows * 8, columns * 128),
            _ => (rows, columns * 64 + odd),
        };
        let weight = tensor("model.a.weight", dtype, &[rows, columns], seed);
        assert_quantized(std::slice::from_ref(&weight), scheme);

        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single([weight]));
        let plan = plan(&base, scheme);
        let entry = plan.shards[0].entry;
        let whole = read_file(&reader(&plan), entry).unwrap();
        let at = (cut * whole.len() as f64) as usize;
        let mut part = vec![0; whole.len() - at];
        reader(&plan).read_at(entry, at as u64, &mut part).unwrap();
        prop_assert_eq!(&part[..], &whole[at..]);
    }
}

#[test]
fn nan_and_infinity_are_errors_that_name_row_and_column() {
    for scheme in SCHEMES {
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 8 * 256];
            values[5 * 256 + 131] = bad;
            let workspace = Workspace::new();
            let weight = of_values("a.weight", Dtype::BF16, &[8, 256], &values);
            let base = workspace.write("base", &Checkpoint::single([weight]));
            let plan = plan(&base, scheme);
            let error = read_file(&reader(&plan), plan.shards[0].entry).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("a.weight"), "{text}");
            assert!(text.contains('5') && text.contains("131"), "{text}");
        }
    }
}

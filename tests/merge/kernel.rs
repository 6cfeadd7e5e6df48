//! The kernel of all merges: any formats, any length, any range, every path: the same bits.

use ckptfs::catalog::Kernel;
use ckptfs::kernels::CpuPath;
use ckptfs::kernels::lanes::Precision;
use ckptfs::ops::merge::{Linear, PointwiseKernel};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::values::{decode, encode};

const FORMATS: [Precision; 3] = [Precision::Bf16, Precision::F16, Precision::F32];

fn dtype(format: Precision) -> Dtype {
    match format {
        Precision::Bf16 => Dtype::BF16,
        Precision::F16 => Dtype::F16,
        Precision::F32 => Dtype::F32,
    }
}

fn rounded(format: Precision, x: f32) -> f32 {
    match format {
        Precision::Bf16 => bf16::from_f32(x).to_f32(),
        Precision::F16 => f16::from_f32(x).to_f32(),
        Precision::F32 => x,
    }
}

/// The weighted sum of each element on its own.
fn naive(
    inputs: &[Vec<f32>],
    weights: &[f32],
    normalize: bool,
    working: Precision,
    output: Precision,
) -> Vec<f32> {
    let total: f32 = weights.iter().sum();
    (0..inputs[0].len())
        .map(|i| {
            let mut sum = 0f32;
            for (input, weight) in inputs.iter().zip(weights) {
                sum = weight.mul_add(rounded(working, input[i]), sum);
            }
            let merged = if normalize { sum / total } else { sum };
            rounded(output, rounded(working, merged))
        })
        .collect()
}

/// All bands of `kernel`, one after the other.
fn run(kernel: &impl Kernel, inputs: &[Vec<u8>], output_bytes: usize) -> Vec<u8> {
    let mut output = vec![0xa5; output_bytes];
    let bands = kernel.bands();
    for band in (0..bands.count()).map(|index| bands.band(index)) {
        let parts: Vec<&[u8]> = inputs
            .iter()
            .enumerate()
            .map(|(i, input)| {
                let range = kernel.input_bytes(i, &band);
                &input[range.start as usize..range.end as usize]
            })
            .collect();
        let range = kernel.output_bytes(0, &band);
        let part = &mut output[range.start as usize..range.end as usize];
        kernel.compute(&[], &band, &parts, &mut [part]).unwrap();
    }
    output
}

fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        8 => -4.0f32..4.0,
        1 => any::<f32>().prop_filter("no NaN", |x| !x.is_nan()),
        1 => Just(0.0),
    ];
    prop::collection::vec(value, len)
}

proptest! {
    #[test]
    fn a_linear_merge_is_the_weighted_sum_of_each_element(
        (inputs, weights) in (1usize..4, 0usize..2600).prop_flat_map(|(count, len)| (
            prop::collection::vec(values(len), count),
            prop::collection::vec(0.1f32..2.0, count),
        )),
        formats in prop::collection::vec(prop::sample::select(&FORMATS[..]), 4),
        working in prop::sample::select(&FORMATS[..]),
        output in prop::sample::select(&FORMATS[..]),
        normalize: bool,
    ) {
        let formats = &formats[..inputs.len()];
        let bytes: Vec<Vec<u8>> = inputs
            .iter()
            .zip(formats)
            .map(|(values, format)| encode(dtype(*format), values))
            .collect();
        let decoded: Vec<Vec<f32>> = bytes
            .iter()
            .zip(formats)
            .map(|(bytes, format)| decode(dtype(*format), bytes))
            .collect();
        let expected = encode(dtype(output), &naive(&decoded, &weights, normalize, working, output));
        for path in CpuPath::available() {
            let formula = Linear { weights: weights.clone(), normalize };
            let shape = [inputs[0].len() as u64];
            let kernel = PointwiseKernel::new(formula, formats.to_vec(), working, output, &shape).on(*path);
            let merged = run(&kernel, &bytes, expected.len());
            let (merged, expected) = (decode(dtype(output), &merged), decode(dtype(output), &expected));
            for (i, (found, expected)) in merged.iter().zip(&expected).enumerate() {
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                prop_assert!(same, "{path:?}: element {i} is {found}, expected {expected}");
            }
        }
    }
}

//! Codes and scales of block FP8 against the scalar definition.

use ckptfs::ops::QuantizeParams;
use ckptfs::quant::fp8_block::ScaleFormat;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, of_values, tensor};
use crate::common::oracle::numbers::{LARGEST_CODE, quantize, scale_name, value_of};
use crate::common::readback::tensors;
use crate::common::values::{Random, decode, power_of_two};
use crate::common::{Workspace, plan_fp8};

const FORMATS: [ScaleFormat; 2] = [ScaleFormat::Ue8m0, ScaleFormat::Float32];

/// Asserts that a view quantizes each of `weights` as the scalar definition does, in both formats.
fn assert_quantized(weights: &[TensorData]) {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(weights.to_vec()));
    for scale_format in FORMATS {
        let request = QuantizeParams {
            patterns: vec![".*".to_owned()],
            scale_format: Some(scale_format),
            ..QuantizeParams::default()
        };
        let plan = plan_fp8(&base, request).unwrap();
        let found = tensors(&plan);
        assert_eq!(found.len(), 2 * weights.len());
        for weight in weights {
            let expected = quantize(weight, scale_format);
            assert_eq!(found[&scale_name(&weight.name)], expected.scale);
            assert_codes(weight, &found[&weight.name], &expected.weight, scale_format);
        }
    }
}

fn assert_codes(
    source: &TensorData,
    found: &TensorData,
    expected: &TensorData,
    format: ScaleFormat,
) {
    assert_eq!(
        (found.dtype, &found.shape),
        (expected.dtype, &expected.shape)
    );
    let differs = |i: &usize| found.bytes[*i] != expected.bytes[*i];
    if let Some(i) = (0..expected.bytes.len()).find(differs) {
        let value = decode(source.dtype, &source.bytes)[i];
        let (found, expected) = (found.bytes[i], expected.bytes[i]);
        panic!(
            "{source:?}, {format:?}: element {i}, {value:e}, is {found:#04x}, not {expected:#04x}"
        );
    }
}

/// Values that set the scale of a block, from the smallest subnormal to the largest number: amax
/// at 448·2^k, next to it, and in between.
fn block_maxima() -> Vec<f32> {
    let mut maxima = vec![f32::from_bits(1), f32::from_bits(0x007F_FFFF), f32::MAX];
    for exponent in [
        -149, -140, -135, -127, -126, -125, -60, -9, -1, 0, 1, 8, 60, 119,
    ] {
        let full = (448.0 * power_of_two(exponent)) as f32;
        maxima.extend([full, full.next_up(), full.next_down(), full * 0.75]);
    }
    maxima
}

/// A tensor of 128 rows in which every block holds `values` clamped to its own largest magnitude.
fn under_maxima(name: &str, dtype: Dtype, values: &[f32], maxima: &[f32]) -> TensorData {
    let blocks_each = (values.len() + 1).div_ceil(128 * 128);
    let columns = maxima.len() * blocks_each * 128;
    let mut rows = vec![0.0; 128 * columns];
    for (m, &amax) in maxima.iter().enumerate() {
        let amax = amax.abs();
        for block in 0..blocks_each {
            let left = (m * blocks_each + block) * 128;
            let from = values.len().min(block * (128 * 128 - 1));
            let part = values[from..].iter().map(|v| v.clamp(-amax, amax));
            let block = std::iter::once(amax).chain(part).take(128 * 128);
            for (i, value) in block.enumerate() {
                rows[i / 128 * columns + left + i % 128] = value;
            }
        }
    }
    of_values(name, dtype, &[128, columns], &rows)
}

/// All finite numbers of a 16-bit format.
fn all_finite(dtype: Dtype) -> Vec<f32> {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let values = decode(dtype, &bytes);
    values
        .into_iter()
        .filter(|value| value.is_finite())
        .collect()
}

/// Largest magnitudes of a 16-bit format: some of many exponents, some that are 448·2^k, and of
/// these all where subnormal elements may still have codes other than 0.
fn maxima_of(dtype: Dtype, every: usize) -> Vec<f32> {
    let all = all_finite(dtype).into_iter().filter(|value| *value > 0.0);
    let full = |value: &f32| f64::from(*value) / 448.0 == exact_power(*value);
    let (full, rest): (Vec<f32>, Vec<f32>) = all.partition(full);
    let (tiny, full): (Vec<f32>, Vec<f32>) = full.into_iter().partition(|amax| *amax < 1e-28);
    let full = full.into_iter().step_by(5);
    let rest = rest.into_iter().step_by(every);
    tiny.into_iter().chain(full).chain(rest).collect()
}

/// The power of two at or below `value` / 448.
fn exact_power(value: f32) -> f64 {
    let quotient = f64::from(value) / 448.0;
    f64::from_bits(quotient.to_bits() & !((1 << 52) - 1))
}

#[test]
fn every_bf16_value_is_quantized_by_the_definition_at_many_scales() {
    let values = all_finite(Dtype::BF16);
    assert_eq!(values.len(), 2 * 0x7F80);
    let maxima = maxima_of(Dtype::BF16, 509);
    assert!(maxima.len() > 100);
    assert_quantized(&[under_maxima("w", Dtype::BF16, &values, &maxima)]);
}

#[test]
fn every_f16_value_is_quantized_by_the_definition_at_many_scales() {
    let values = all_finite(Dtype::F16);
    assert_eq!(values.len(), 2 * 0x7C00);
    let maxima = maxima_of(Dtype::F16, 1009);
    assert!(maxima.len() > 30);
    assert_quantized(&[under_maxima("w", Dtype::F16, &values, &maxima)]);
}

#[test]
fn every_bf16_and_f16_value_may_be_alone_in_its_block() {
    for dtype in [Dtype::BF16, Dtype::F16] {
        let values = all_finite(dtype);
        let weight = of_values("w", dtype, &[values.len(), 1, 1], &values);
        assert_quantized(&[weight]);
    }
}

/// Both signs of every e4m3 magnitude, of every midpoint of two neighbours, and of what lies above
/// the largest.
fn boundaries() -> Vec<f64> {
    let magnitudes = || (0..=LARGEST_CODE).map(value_of);
    let midpoints = magnitudes()
        .zip(magnitudes().skip(1))
        .map(|(a, b)| (a + b) / 2.0);
    let all: Vec<f64> = magnitudes()
        .chain(midpoints)
        .chain([464.0, 480.0])
        .collect();
    all.iter().flat_map(|v| [*v, -*v]).collect()
}

/// F32 numbers that land, divided by `scale`, at and next to every rounding boundary.
fn at_boundaries(scale: f32) -> Vec<f32> {
    let near = |boundary: f64| {
        let value = (boundary * f64::from(scale)) as f32;
        let (up, down) = (value.next_up(), value.next_down());
        [value, up, down, up.next_up(), down.next_down()]
    };
    boundaries()
        .into_iter()
        .flat_map(near)
        .filter(|v| v.is_finite())
        .collect()
}

#[test]
fn f32_values_at_and_next_to_every_rounding_boundary_are_quantized_by_the_definition() {
    let maxima = block_maxima();
    let weights: Vec<TensorData> = maxima
        .iter()
        .enumerate()
        .flat_map(|(i, amax)| {
            FORMATS.map(|format| {
                let values = at_boundaries(crate::common::oracle::numbers::scale_of(*amax, format));
                let name = format!("w{i}{format:?}");
                under_maxima(&name, Dtype::F32, &values, &[*amax])
            })
        })
        .collect();
    assert_quantized(&weights);
}

#[test]
fn f32_values_of_random_bits_are_quantized_by_the_definition() {
    let mut random = Random::new(11);
    let values = std::iter::repeat_with(|| f32::from_bits(random.next() as u32));
    let values: Vec<f32> = values.filter(|v| v.is_finite()).take(60_000).collect();
    assert_quantized(&[under_maxima("w", Dtype::F32, &values, &block_maxima()[..9])]);
}

#[test]
fn random_blocks_of_every_dtype_and_shape_are_quantized_by_the_definition() {
    let shapes: [&[usize]; 14] = [
        &[128, 128],
        &[1, 1],
        &[1, 1000],
        &[1000, 1],
        &[127, 129],
        &[129, 127],
        &[257, 300],
        &[384, 256],
        &[3, 130, 200],
        &[5, 64, 128],
        &[2, 128, 256],
        &[7, 1, 3],
        &[1, 300, 1],
        &[2, 257, 128],
    ];
    let mut weights = Vec::new();
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        for (i, shape) in shapes.iter().enumerate() {
            weights.push(tensor(&format!("{dtype:?}.{i}"), dtype, shape, i as u64));
        }
    }
    assert_quantized(&weights);
}

#[test]
fn a_tensor_of_several_tiles_is_quantized_by_the_definition() {
    assert_quantized(&[
        tensor("tall", Dtype::BF16, &[20_000, 130], 1),
        tensor("wide", Dtype::BF16, &[200, 9_000], 2),
        tensor("deep", Dtype::F16, &[40, 200, 150], 3),
    ]);
}

#[test]
fn a_tensor_without_elements_has_no_codes_and_no_scales() {
    let shapes: [&[usize]; 4] = [&[0, 128], &[5, 0], &[0, 4, 4], &[3, 0, 130]];
    let weights = shapes.iter().enumerate();
    let weights: Vec<_> = weights
        .map(|(i, shape)| tensor(&format!("w{i}"), Dtype::BF16, shape, 1))
        .collect();
    assert_quantized(&weights);
}

#[test]
fn a_block_of_zeros_has_scale_one_and_keeps_the_signs() {
    let values: Vec<f32> = (0..128 * 256)
        .map(|i| if i % 3 == 0 { -0.0 } else { 0.0 })
        .collect();
    let weight = of_values("w", Dtype::BF16, &[128, 256], &values);
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
    for scale_format in FORMATS {
        let request = QuantizeParams {
            patterns: vec!["w".to_owned()],
            scale_format: Some(scale_format),
            ..QuantizeParams::default()
        };
        let found = tensors(&plan_fp8(&base, request).unwrap());
        let codes: Vec<u8> = (0..128 * 256)
            .map(|i| if i % 3 == 0 { 0x80 } else { 0 })
            .collect();
        assert_eq!(*found["w"].bytes, codes);
        assert_eq!(decode(Dtype::F32, &found["w_scale_inv"].bytes), [1.0, 1.0]);
    }
    assert_quantized(&[weight]);
}

#[test]
fn the_scale_is_the_smallest_that_fits_and_never_below_the_smallest_normal_number() {
    // amax, then its scale as a power of two.
    let cases = [
        (448.0, 1.0),
        (448.0f32.next_up(), 2.0),
        (448.0f32.next_down(), 1.0),
        (224.0, 0.5),
        (224.0f32.next_up(), 1.0),
        (1.0, 1.0 / 256.0),
        (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
        (f32::from_bits(1), f32::MIN_POSITIVE),
        (448.0 * f32::MIN_POSITIVE, f32::MIN_POSITIVE),
        (
            (448.0 * f32::MIN_POSITIVE).next_up(),
            2.0 * f32::MIN_POSITIVE,
        ),
        (f32::MAX, power_of_two(120) as f32),
    ];
    let values = cases.map(|(amax, _)| amax);
    let weight = of_values("w", Dtype::F32, &[cases.len(), 1, 1], &values);
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
    let request = QuantizeParams {
        patterns: vec!["w".to_owned()],
        ..QuantizeParams::default()
    };
    let found = tensors(&plan_fp8(&base, request).unwrap());
    let scales = decode(Dtype::F32, &found["w_scale_inv"].bytes);
    assert_eq!(scales, cases.map(|(_, scale)| scale));
    assert_quantized(&[weight]);
}

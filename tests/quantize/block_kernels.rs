//! Every CPU path of the kernels for MXFP4, MXFP8 and NVFP4 gives the bits of the scalar definition.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::cast::Target;
use ckptfs::kernels::float4::e2m1_to_f32;
use ckptfs::kernels::fp8::Element;
use ckptfs::kernels::microscaling::{self, dequantize_e2m1_row, quantize_rows};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::block_floats::{Format, amax, quantize};
use crate::common::checkpoint::{TensorData, of_values, tensor};
use crate::common::values::{Random, decode, encode, power_of_two};

fn assert_format<T: Element, F: microscaling::Format>(weight: &TensorData, format: Format) {
    let amax = amax(weight);
    let expected = quantize(&decode(weight.dtype, &weight.bytes), format, amax);
    assert_eq!(F::global(amax), expected.global, "{format:?}");
    for &path in CpuPath::available() {
        let mut codes = vec![0xaa; expected.codes.len() * F::BITS / 8];
        let mut scales = vec![0xaa; expected.scales.len()];
        let (source, columns) = (&weight.bytes, weight.shape[1]);
        let global = expected.global;
        quantize_rows::<T, F>(source, columns, global, &mut codes, &mut scales, path).unwrap();
        assert_eq!(scales, expected.scales, "{format:?}, {path:?}, {weight:?}");
        if F::BITS == 4 {
            codes = codes
                .iter()
                .flat_map(|pair| [pair & 15, pair >> 4])
                .collect();
        }
        assert_eq!(codes, expected.codes, "{format:?}, {path:?}, {weight:?}");
        let found = microscaling::amax::<T>(source, path).unwrap();
        assert_eq!(found, amax, "{path:?}");
    }
}

fn assert_formats<T: Element>(weight: &TensorData) {
    use microscaling as made;
    assert_format::<T, made::Mxfp4>(weight, Format::Mxfp4);
    assert_format::<T, made::Mxfp4Modelopt>(weight, Format::Mxfp4Modelopt);
    assert_format::<T, made::Mxfp4Triton>(weight, Format::Mxfp4GptOss);
    assert_format::<T, made::Mxfp8>(weight, Format::Mxfp8);
    assert_format::<T, made::Mxfp8Modelopt>(weight, Format::Mxfp8Modelopt);
    assert_format::<T, made::Nvfp4>(weight, Format::Nvfp4);
    assert_format::<T, made::Nvfp4Modelopt>(weight, Format::Nvfp4Modelopt);
}

fn assert_all(weight: &TensorData) {
    match weight.dtype {
        Dtype::BF16 => assert_formats::<bf16>(weight),
        Dtype::F16 => assert_formats::<f16>(weight),
        _ => assert_formats::<f32>(weight),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_path_gives_the_bits_of_the_definition(
        dtype in proptest::sample::select(vec![Dtype::BF16, Dtype::F16, Dtype::F32]),
        rows in 1usize..6,
        groups in 1usize..9,
        seed in any::<u64>(),
    ) {
        assert_all(&tensor("x.weight", dtype, &[rows, groups * 32], seed));
    }
}

/// Groups whose largest numbers are at and around every place where a scale changes, at several
/// exponents, with numbers at and around every place where a code changes.
#[test]
fn ties_and_the_numbers_around_them_are_rounded_as_defined() {
    let places = [0.25, 0.5, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0, 7.0];
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        let mut values = Vec::new();
        for exponent in [-140, -127, -126, -64, -33, -8, -2, 0, 1, 5, 100] {
            for largest in [1.0, 1.5, 1.75, 448.0 / 256.0, 1.25] {
                for step in -12i32..=30 {
                    let largest = (largest * power_of_two(exponent)) as f32;
                    let largest = f32::from_bits(largest.to_bits().saturating_add_signed(step));
                    let group = (0..32).map(|i| {
                        let place = places[i % 10] * f64::from(largest) / 8.0;
                        let near = (place as f32)
                            .to_bits()
                            .saturating_add_signed(i as i32 / 10 - 1);
                        let near = f32::from_bits(near).min(largest);
                        if i % 2 == 0 { near } else { -near }
                    });
                    let mut group: Vec<f32> = group.collect();
                    (group[5], group[21], group[6]) = (largest, -largest, -0.0);
                    values.extend(group);
                }
            }
        }
        // Of what F16 and BF16 cannot hold, infinities.
        values.iter_mut().for_each(|x| {
            *x = if dtype == Dtype::F16 {
                x.clamp(-6e4, 6e4)
            } else {
                *x
            }
        });
        let rows = values.len() / 32;
        assert_all(&of_values("x.weight", dtype, &[rows, 32], &values));
    }
}

#[test]
fn codes_of_four_bits_have_the_numbers_of_their_format() {
    for code in 0..16 {
        let expected = Format::Mxfp4.level(code);
        assert_eq!(e2m1_to_f32(code).to_bits(), expected.to_bits());
    }
}

/// Products are rounded once, and a NaN is the one without sign.
fn assert_products<T: Target>(dtype: Dtype, packed: &[u8], scales: &[f32], group: usize) {
    let codes = packed.iter().flat_map(|pair| [pair & 15, pair >> 4]);
    let products = codes.enumerate().map(|(at, code)| {
        let product = Format::Mxfp4.level(code) * scales[at / group];
        if product.is_nan() { f32::NAN } else { product }
    });
    let expected = encode(dtype, &products.collect::<Vec<_>>());
    for &path in CpuPath::available() {
        let mut found = vec![0xaa; expected.len()];
        dequantize_e2m1_row::<T>(packed, scales, group, &mut found, path);
        assert!(found == expected, "{dtype:?}, {group}, {path:?}");
    }
}

proptest! {
    #[test]
    fn every_path_multiplies_codes_of_four_bits_by_their_scales(
        bytes in 1usize..200,
        group in prop::sample::select(vec![6usize, 16, 32, 64, 128]),
        any_scale in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let packed: Vec<u8> = (0..bytes).map(|_| random.below(256) as u8).collect();
        let scales: Vec<f32> = (0..(bytes * 2).div_ceil(group)).map(|_| {
            let bits = random.next() as u32;
            // Infinities, NaNs and subnormal numbers among them, or sizes that weights have.
            if any_scale { f32::from_bits(bits) } else { f32::from_bits(bits >> 9 | 0x3c00_0000) }
        }).collect();
        assert_products::<bf16>(Dtype::BF16, &packed, &scales, group);
        assert_products::<f16>(Dtype::F16, &packed, &scales, group);
        assert_products::<f32>(Dtype::F32, &packed, &scales, group);
    }
}

#[test]
fn the_first_number_that_is_not_finite_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; 4 * 64];
        values[2 * 64 + 35] = bad;
        let weight = of_values("x.weight", Dtype::BF16, &[4, 64], &values);
        for &path in CpuPath::available() {
            let (mut codes, mut scales) = (vec![0; 128], vec![0; 8]);
            let found = quantize_rows::<bf16, microscaling::Mxfp4>(
                &weight.bytes,
                64,
                1.0,
                &mut codes,
                &mut scales,
                path,
            );
            let at = found.unwrap_err();
            assert_eq!((at.row, at.column), (2, 35), "{path:?}");
            assert_eq!(at.value.to_bits(), bad.to_bits());
            let (element, _) = microscaling::amax::<bf16>(&weight.bytes, path).unwrap_err();
            assert_eq!(element, 2 * 64 + 35);
        }
    }
}

//! Every CPU path of the FP8 kernel gives the bits of the scalar definition.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::fp8::{Element, ScaleFormat, quantize_block_row};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::checkpoint::TensorData;
use crate::common::oracle::numbers;
use crate::common::values::Random;

const BLOCK: usize = 128;
const FORMATS: [ScaleFormat; 2] = [ScaleFormat::Ue8m0, ScaleFormat::Float32];

trait Tested: Element {
    const DTYPE: Dtype;
}

impl Tested for bf16 {
    const DTYPE: Dtype = Dtype::BF16;
}

impl Tested for f16 {
    const DTYPE: Dtype = Dtype::F16;
}

impl Tested for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

/// Quantizes a matrix of `columns` columns with `path`: codes, then the bytes of the scales.
fn quantize<T: Element>(
    source: &[u8],
    columns: usize,
    format: ScaleFormat,
    path: CpuPath,
) -> (Vec<u8>, Vec<u8>) {
    let mut codes = vec![0xff; source.len() / T::BYTES];
    let mut scales = Vec::new();
    let rows = source.chunks(BLOCK * columns * T::BYTES);
    for (source, codes) in rows.zip(codes.chunks_mut(BLOCK * columns)) {
        let mut row_scales = vec![0.0; columns.div_ceil(BLOCK)];
        quantize_block_row::<T>(source, columns, codes, &mut row_scales, format, path)
            .expect("finite values");
        scales.extend(row_scales.iter().flat_map(|scale| scale.to_le_bytes()));
    }
    (codes, scales)
}

/// Asserts that all paths quantize a matrix of `columns` columns as defined.
fn assert_as_defined<T: Tested>(source: &[u8], columns: usize) {
    let shape = [source.len() / T::BYTES / columns, columns];
    let tensor = TensorData::new("x", T::DTYPE, &shape, source.to_vec());
    for format in FORMATS {
        let expected = numbers::quantize(&tensor, format);
        for &path in CpuPath::available() {
            let (codes, scales) = quantize::<T>(source, columns, format, path);
            let case = format!("{:?}, {path:?}, {format:?}, {shape:?}", T::DTYPE);
            assert!(*scales == *expected.scale.bytes, "scales differ: {case}");
            let differing = (0..codes.len()).find(|&i| codes[i] != expected.weight.bytes[i]);
            if let Some(i) = differing {
                let value = T::read(&source[i * T::BYTES..][..T::BYTES]);
                let (found, expected) = (codes[i], expected.weight.bytes[i]);
                panic!("{value:e} has code {found:#x}, not {expected:#x}: {case}");
            }
        }
    }
}

/// All values of a 16-bit type whose magnitude bits are at most `most`, as a block row of 512
/// columns; zero in place of others.
fn assert_all_16_bit_values<T: Tested>(most: u16) {
    let mut values: Vec<u8> = (0..=u16::MAX)
        .map(|bits| if bits & 0x7fff <= most { bits } else { 0 })
        .flat_map(u16::to_le_bytes)
        .collect();
    // Each of the four blocks has the same largest magnitude. What it replaces are small numbers
    // of the first row.
    for block in 0..4 {
        let at = 2 * block * BLOCK;
        values[at..at + 2].copy_from_slice(&most.to_le_bytes());
    }
    assert_as_defined::<T>(&values, 4 * BLOCK);
}

#[test]
fn every_bf16_value_is_as_defined_at_every_power_of_two_scale() {
    for exponent in 0..=254u16 {
        let largest = exponent << 7 | 0x60; // 1.75 · 2ᵉ, the largest magnitude for its scale
        assert_all_16_bit_values::<bf16>(largest);
    }
}

#[test]
fn every_bf16_value_is_as_defined_at_scales_of_every_mantissa() {
    // Exact scales of amax = 7·2ⁿ·k have short mantissas, so that quotients lie in the middle
    // between codes; all 128 mantissas have such ones among them.
    for exponent in [1, 9, 16, 127, 254u16] {
        for mantissa in 0..=0x7f {
            assert_all_16_bit_values::<bf16>(exponent << 7 | mantissa);
        }
    }
}

#[test]
fn every_f16_value_is_as_defined_at_many_scales() {
    for exponent in 0..=30u16 {
        // The middle ones, with the leading one, are 7 · 2ⁿ · k: their exact scales have short
        // mantissas, so that quotients lie in the middle between codes.
        for mantissa in [
            0, 1, 0x60, 0xd0, 0x140, 0x220, 0x290, 0x300, 0x301, 0x2aa, 0x3ff,
        ] {
            assert_all_16_bit_values::<f16>(exponent << 10 | mantissa);
        }
    }
}

/// For blocks whose largest magnitude is `amax`: numbers around every place where the code of
/// `x / scale` changes, and the same with the other sign.
fn next_to_boundaries(amax: f32) -> Vec<u8> {
    let mut values = vec![0.0, -0.0, f32::MIN_POSITIVE, f32::from_bits(1)];
    for format in FORMATS {
        let scale = numbers::scale_of(amax, format);
        for code in 0..numbers::LARGEST_CODE {
            let middle = (numbers::value_of(code) + numbers::value_of(code + 1)) / 2.0;
            let near = (middle * f64::from(scale)) as f32;
            let (below, above) = (near.next_down(), near.next_up());
            values.extend([below.next_down(), below, near, above, above.next_up()]);
        }
    }
    values.retain(|x| x.abs() <= amax);
    let signed = values.iter().flat_map(|&x| [x, -x]);
    let mut block: Vec<f32> = std::iter::once(amax).chain(signed).collect();
    block.resize(block.len().next_multiple_of(BLOCK), 0.0);
    block.into_iter().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn f32_values_next_to_rounding_boundaries_are_as_defined() {
    let mut random = Random::new(7);
    let mut amaxes = vec![f32::MAX, 448.0, 1.75, 1e-45, f32::MIN_POSITIVE, 448e-38];
    // The mantissas of exact scales next to 1 and to 2, where quotients are widest and narrowest.
    for k in 0..4 {
        amaxes.push(f32::from_bits(448f32.to_bits() + k));
        amaxes.push(f32::from_bits(896f32.to_bits() - k));
    }
    amaxes.extend((0..2000).map(|_| f32::from_bits(random.below(0x7f80_0000) as u32)));
    for amax in amaxes {
        assert_as_defined::<f32>(&next_to_boundaries(amax), BLOCK);
    }
}

#[test]
fn zeros_keep_their_signs_and_have_scale_1() {
    for (rows, columns) in [(1, 1), (128, 256), (3, 129)] {
        let negative = |i: usize| i.is_multiple_of(3);
        let zeros_16: Vec<u8> = (0..rows * columns)
            .flat_map(|i| (u16::from(negative(i)) << 15).to_le_bytes())
            .collect();
        assert_as_defined::<bf16>(&zeros_16, columns);
        assert_as_defined::<f16>(&zeros_16, columns);
        let zeros_32: Vec<u8> = (0..rows * columns)
            .flat_map(|i| (u32::from(negative(i)) << 31).to_le_bytes())
            .collect();
        assert_as_defined::<f32>(&zeros_32, columns);
    }
}

/// A matrix of numbers whose exponents are at most `spread` below the largest that `seed` allows,
/// or of any finite numbers.
fn random_matrix<T: Tested>(len: usize, spread: Option<u32>, random: &mut Random) -> Vec<u8> {
    let exponents = (1 << (8 * T::BYTES as u32 - 1 - T::MANTISSA_BITS)) - 1;
    let largest = random.below(exponents as usize) as u32;
    let bytes = (0..len).flat_map(|_| {
        let below = match spread {
            Some(spread) => random.below(spread as usize + 1) as u32,
            None => random.below(exponents as usize) as u32,
        };
        let exponent = largest.saturating_sub(below);
        let mantissa = random.next() as u32 & ((1 << T::MANTISSA_BITS) - 1);
        let sign = (random.next() as u32 & 1) << (8 * T::BYTES as u32 - 1);
        let bits: u32 = sign | exponent << T::MANTISSA_BITS | mantissa;
        bits.to_le_bytes().into_iter().take(T::BYTES)
    });
    bytes.collect()
}

fn assert_random_matrices(rows: usize, columns: usize, spread: Option<u32>, seed: u64) {
    let mut random = Random::new(seed);
    let len = rows * columns;
    assert_as_defined::<bf16>(&random_matrix::<bf16>(len, spread, &mut random), columns);
    assert_as_defined::<f16>(&random_matrix::<f16>(len, spread, &mut random), columns);
    assert_as_defined::<f32>(&random_matrix::<f32>(len, spread, &mut random), columns);
}

#[test]
fn matrices_of_every_kind_of_width_are_as_defined() {
    for columns in [
        1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 192, 255, 256, 257,
    ] {
        for rows in [1, 2, 127, 128, 129] {
            assert_random_matrices(rows, columns, Some(6), (rows * columns) as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn random_matrices_of_any_size_are_as_defined(
        rows in 1usize..200,
        columns in 1usize..300,
        spread in prop::option::of(0u32..20),
        seed in any::<u64>(),
    ) {
        assert_random_matrices(rows, columns, spread, seed);
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_by_every_path() {
    let columns = 200;
    let mut source = vec![0u8; 2 * 100 * columns];
    for (row, column, bits) in [(99, 199, 0x7f80u16), (70, 130, 0xffc1)] {
        let at = 2 * (row * columns + column);
        source[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    }
    for &path in CpuPath::available() {
        let mut codes = vec![7; 100 * columns];
        let mut scales = [0.0; 2];
        let fault = quantize_block_row::<bf16>(
            &source,
            columns,
            &mut codes,
            &mut scales,
            ScaleFormat::Ue8m0,
            path,
        )
        .expect_err("a NaN cannot be quantized");
        assert_eq!((fault.row, fault.column), (70, 130), "{path:?}");
        assert!(fault.value.is_nan(), "{path:?}");
        assert!(codes.iter().all(|&code| code == 7), "no code is written");
    }
}

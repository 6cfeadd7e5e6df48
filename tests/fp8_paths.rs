//! Every CPU path of the FP8 kernel gives the bits of the plain one.

use ckptfs::kernels::fp8::{CpuPath, Element, ScaleFormat, quantize_block_row};
use half::{bf16, f16};
use proptest::prelude::*;

const BLOCK: usize = 128;
const FORMATS: [ScaleFormat; 2] = [ScaleFormat::Ue8m0, ScaleFormat::Float32];

/// Quantizes a matrix of `columns` columns with `path`: codes, then the bits of the scales.
fn quantize<T: Element>(
    source: &[u8],
    columns: usize,
    format: ScaleFormat,
    path: CpuPath,
) -> (Vec<u8>, Vec<u32>) {
    let mut codes = vec![0; source.len() / T::BYTES];
    let mut scales = Vec::new();
    let rows = source.chunks(BLOCK * columns * T::BYTES);
    for (source, codes) in rows.zip(codes.chunks_mut(BLOCK * columns)) {
        let mut row_scales = vec![0.0; columns.div_ceil(BLOCK)];
        quantize_block_row::<T>(source, columns, codes, &mut row_scales, format, path)
            .expect("finite values");
        scales.extend(row_scales.iter().map(|scale| scale.to_bits()));
    }
    (codes, scales)
}

fn assert_paths_agree<T: Element>(source: &[u8], columns: usize) {
    for format in FORMATS {
        let plain = quantize::<T>(source, columns, format, CpuPath::Scalar);
        for &path in CpuPath::available() {
            let other = quantize::<T>(source, columns, format, path);
            assert!(
                plain == other,
                "{path:?} differs from the plain path, {format:?}"
            );
        }
    }
}

/// All values of a 16-bit type whose magnitude bits are at most `most`; zero in place of others.
fn all_16_bit_values(most: u16) -> Vec<u8> {
    (0..=u16::MAX)
        .map(|bits| if bits & 0x7fff <= most { bits } else { 0 })
        .flat_map(u16::to_le_bytes)
        .collect()
}

#[test]
fn every_bf16_value_has_the_same_code_on_every_path_at_every_power_of_two_scale() {
    for exponent in 0..=254u16 {
        let largest = exponent << 7 | 0x60; // 1.75 · 2ᵉ, the largest magnitude for its scale
        assert_paths_agree::<bf16>(&all_16_bit_values(largest), BLOCK);
    }
}

#[test]
fn every_bf16_value_has_the_same_code_on_every_path_at_many_exact_scales() {
    for exponent in (0..=254u16).step_by(7) {
        for mantissa in (0..=0x7f).step_by(19) {
            assert_paths_agree::<bf16>(&all_16_bit_values(exponent << 7 | mantissa), BLOCK);
        }
    }
}

#[test]
fn every_f16_value_has_the_same_code_on_every_path_at_many_scales() {
    for exponent in 0..=30u16 {
        for mantissa in [0, 1, 0x2aa, 0x300, 0x301, 0x3ff] {
            assert_paths_agree::<f16>(&all_16_bit_values(exponent << 10 | mantissa), BLOCK);
        }
    }
}

#[test]
fn f32_values_next_to_rounding_boundaries_have_the_same_code_on_every_path() {
    // Halfway between neighbours of the E4M3 grid, and the f32 values around, at several scales.
    let mut values = vec![0.0f32, -0.0, 448.0, 464.0];
    for exponent in -10..=8 {
        for sixteenths in 16..32 {
            let middle = sixteenths as f32 / 16.0 * 2f32.powi(exponent);
            values.extend([middle.next_down(), middle, middle.next_up()]);
        }
    }
    for power in [-140, -126, -100, -8, 0, 3, 100, 119] {
        let scaled: Vec<u8> = values
            .iter()
            .flat_map(|x| [*x, -*x])
            .map(|x| (f64::from(x) * 2f64.powi(power)) as f32)
            .flat_map(f32::to_le_bytes)
            .collect();
        let columns = 2 * values.len();
        assert_paths_agree::<f32>(&scaled, columns);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_matrices_of_any_size_agree(
        rows in 1usize..300,
        columns in 1usize..300,
        seed in any::<u64>(),
    ) {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let finite_32: Vec<u8> = (0..rows * columns)
            .map(|_| f32::from_bits(next() as u32))
            .flat_map(|x| if x.is_finite() { x } else { 0.0 }.to_le_bytes())
            .collect();
        assert_paths_agree::<f32>(&finite_32, columns);
        let bits: Vec<u16> = (0..rows * columns).map(|_| next() as u16).collect();
        let finite = |exponent: u16| -> Vec<u8> {
            bits.iter()
                .map(|&b| if b & exponent == exponent { b & 0x80ff } else { b })
                .flat_map(u16::to_le_bytes)
                .collect()
        };
        assert_paths_agree::<bf16>(&finite(0x7f80), columns);
        assert_paths_agree::<f16>(&finite(0x7c00), columns);
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

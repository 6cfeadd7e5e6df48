//! Rounding and dequantizing give what the scalar definition says, the same on every CPU path.

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::cast::{
    Code, E4m3, E5m2, F64ToF32, F64ToOdd, Source, Target, convert, dequantize_row,
};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::checkpoint::TensorData;
use crate::common::oracle::casting::{self, Element};

/// Asserts that elements of `from` become those of `to` that the definition says, on every path,
/// also if they are read in parts.
fn assert_converts<S: Source, T: Target>(from: Dtype, to: Dtype, bytes: &[u8]) {
    let source = TensorData::new("x", from, &[bytes.len() / S::BYTES], bytes.to_vec());
    let expected = casting::cast(&source, to);
    let mut first: Option<Vec<u8>> = None;
    for &path in CpuPath::available() {
        let mut found = vec![0xAA; expected.len() * T::BYTES];
        convert::<S, T>(bytes, &mut found, path);
        assert_elements(&casting::elements(to, &found), &expected, |i| {
            let value = casting::values(from, bytes)[i];
            format!("{value:e} of {from:?} as {to:?}, {path:?}")
        });
        // Other loops do the last elements.
        let mut parts = vec![0xAA; found.len()];
        for (source, target) in bytes
            .chunks(13 * S::BYTES)
            .zip(parts.chunks_mut(13 * T::BYTES))
        {
            convert::<S, T>(source, target, path);
        }
        assert!(parts == found, "in parts, {from:?} to {to:?}, {path:?}");
        // To the bit, NaN included.
        assert!(*first.get_or_insert(found.clone()) == found, "{path:?}");
    }
}

fn assert_elements(found: &[Element], expected: &[Element], case: impl Fn(usize) -> String) {
    assert_eq!(found.len(), expected.len());
    if let Some(i) = (0..found.len()).find(|&i| found[i] != expected[i]) {
        let (found, expected) = (found[i], expected[i]);
        panic!("{}: {found:x?}, expected {expected:x?}", case(i));
    }
}

fn every_16_bits() -> Vec<u8> {
    (0..=u16::MAX).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn every_bf16_and_every_f16_is_as_defined_in_every_dtype() {
    let all = every_16_bits();
    assert_converts::<bf16, f16>(Dtype::BF16, Dtype::F16, &all);
    assert_converts::<bf16, f32>(Dtype::BF16, Dtype::F32, &all);
    assert_converts::<f16, bf16>(Dtype::F16, Dtype::BF16, &all);
    assert_converts::<f16, f32>(Dtype::F16, Dtype::F32, &all);
    assert_converts::<bf16, bf16>(Dtype::BF16, Dtype::BF16, &all);
    assert_converts::<f16, f16>(Dtype::F16, Dtype::F16, &all);
}

/// Every number of a 16-bit dtype, everything in the middle between two, and the largest ones.
fn turning_points(dtype: Dtype) -> Vec<f64> {
    let all = casting::values(dtype, &every_16_bits());
    let mut finite: Vec<f64> = all.into_iter().filter(|value| value.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let middles = finite.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    let largest = finite[finite.len() - 1];
    let beyond = 2.0 * largest - finite[finite.len() - 2];
    let overflow = (largest + beyond) / 2.0;
    let points = middles.chain([overflow, -overflow, beyond, -beyond]);
    points.chain(finite.clone()).collect()
}

#[test]
fn f32_is_as_defined_around_every_place_where_rounding_turns() {
    for dtype in [Dtype::BF16, Dtype::F16] {
        let mut bytes = Vec::new();
        for point in turning_points(dtype) {
            let point = point as f32;
            for value in [point.next_down(), point, point.next_up()] {
                bytes.extend(value.to_le_bytes());
            }
        }
        match dtype {
            Dtype::BF16 => assert_converts::<f32, bf16>(Dtype::F32, dtype, &bytes),
            _ => assert_converts::<f32, f16>(Dtype::F32, dtype, &bytes),
        }
    }
}

#[test]
fn f64_is_rounded_once_around_every_place_where_rounding_turns() {
    for dtype in [Dtype::BF16, Dtype::F16] {
        let mut bytes = Vec::new();
        for point in turning_points(dtype) {
            for value in [point.next_down(), point, point.next_up()] {
                bytes.extend(value.to_le_bytes());
            }
        }
        match dtype {
            Dtype::BF16 => assert_converts::<F64ToOdd, bf16>(Dtype::F64, dtype, &bytes),
            _ => assert_converts::<F64ToOdd, f16>(Dtype::F64, dtype, &bytes),
        }
    }
}

/// Any bits, mostly those of numbers that the dtypes have in common.
fn any_bits() -> impl Strategy<Value = Vec<u64>> {
    let near_one = (any::<u64>(), -160..140i32).prop_map(|(bits, exponent)| {
        let exponent = ((exponent + 1023) as u64) << 52;
        bits & !(0x7ff << 52) | exponent
    });
    prop::collection::vec(prop_oneof![any::<u64>(), near_one], 1..200)
}

proptest! {
    #[test]
    fn any_f32_is_as_defined(bits in any_bits()) {
        let f32s = bits.iter().flat_map(|bits| match bits % 3 {
            0 => ((bits >> 32) as u32).to_le_bytes(),
            _ => (f64::from_bits(*bits) as f32).to_le_bytes(),
        });
        let bytes: Vec<u8> = f32s.collect();
        assert_converts::<f32, bf16>(Dtype::F32, Dtype::BF16, &bytes);
        assert_converts::<f32, f16>(Dtype::F32, Dtype::F16, &bytes);
        assert_converts::<f32, f32>(Dtype::F32, Dtype::F32, &bytes);
    }

    #[test]
    fn any_f64_is_as_defined(bits in any_bits()) {
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        assert_converts::<F64ToOdd, bf16>(Dtype::F64, Dtype::BF16, &bytes);
        assert_converts::<F64ToOdd, f16>(Dtype::F64, Dtype::F16, &bytes);
        assert_converts::<F64ToF32, f32>(Dtype::F64, Dtype::F32, &bytes);
    }

    #[test]
    fn every_code_times_any_scale_is_as_defined(
        scales in prop::collection::vec(any_bits(), 3),
        block_columns in 1..300usize,
        rotation in any::<u8>(),
    ) {
        // Every code with each of three scales or more, in blocks of any width.
        let codes: Vec<u8> = (0..=255u8).map(|code| code.wrapping_add(rotation)).collect();
        let count = codes.len().div_ceil(block_columns);
        for bits in scales {
            let scales: Vec<f32> = (0..count)
                .map(|i| match bits[i % bits.len()] {
                    bits if bits % 2 == 0 => f32::from_bits((bits >> 32) as u32),
                    bits => f64::from_bits(bits) as f32,
                })
                .collect();
            assert_dequantizes::<E4m3>(Dtype::F8_E4M3, &codes, &scales, block_columns);
            assert_dequantizes::<E5m2>(Dtype::F8_E5M2, &codes, &scales, block_columns);
        }
    }
}

fn assert_dequantizes<C: Code>(dtype: Dtype, codes: &[u8], scales: &[f32], block_columns: usize) {
    let weight = TensorData::new("x", dtype, &[1, codes.len()], codes.to_vec());
    let bytes: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    let grid = TensorData::new("s", Dtype::F32, &[1, scales.len()], bytes);
    let check = |to, dequantize: &dyn Fn(&mut [u8], CpuPath)| {
        let expected = casting::dequantize(&weight, &grid, [1, block_columns], to);
        for &path in CpuPath::available() {
            let mut found = vec![0xAA; codes.len() * if to == Dtype::F32 { 4 } else { 2 }];
            dequantize(&mut found, path);
            assert_elements(&casting::elements(to, &found), &expected, |i| {
                let scale = scales[i / block_columns];
                format!(
                    "{:#x} of {dtype:?} times {scale:e} as {to:?}, {path:?}",
                    codes[i]
                )
            });
        }
    };
    check(Dtype::BF16, &|to, path| {
        dequantize_row::<C, bf16>(codes, scales, block_columns, to, path);
    });
    check(Dtype::F16, &|to, path| {
        dequantize_row::<C, f16>(codes, scales, block_columns, to, path);
    });
    check(Dtype::F32, &|to, path| {
        dequantize_row::<C, f32>(codes, scales, block_columns, to, path);
    });
}

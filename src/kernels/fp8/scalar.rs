//! The definition in plain Rust, written so that compilers can vectorize it.

use super::blocks::BLOCK;
use super::element::Element;
use super::scales::exact_reciprocal;
use crate::kernels::float8::e4m3_from_f32;

/// The largest magnitude of each block, as bits, joined with what `amax` holds.
#[inline(always)]
pub(super) fn amax_bits<T: Element>(source: &[u8], columns: usize, amax: &mut [u32]) {
    for row in source.chunks_exact(columns * T::BYTES) {
        for (part, amax) in row.chunks(BLOCK * T::BYTES).zip(&mut *amax) {
            let magnitudes = part.chunks_exact(T::BYTES).map(T::magnitude_bits);
            *amax = magnitudes.fold(*amax, u32::max);
        }
    }
}

/// Writes the codes of finite elements.
#[inline(always)]
pub(super) fn encode<T: Element>(source: &[u8], columns: usize, codes: &mut [u8], scales: &[f32]) {
    let rows = source.chunks_exact(columns * T::BYTES);
    for (row, codes) in rows.zip(codes.chunks_exact_mut(columns)) {
        let parts = row.chunks(BLOCK * T::BYTES).zip(codes.chunks_mut(BLOCK));
        for ((part, codes), &scale) in parts.zip(scales) {
            match exact_reciprocal(scale) {
                Some(reciprocal) => encode_part::<T>(part, codes, |x| x * reciprocal),
                None => encode_part::<T>(part, codes, |x| x / scale),
            }
        }
    }
}

/// Writes the codes of elements of one block, with `unscale` for the division by its scale.
#[inline(always)]
pub(super) fn encode_part<T: Element>(part: &[u8], codes: &mut [u8], unscale: impl Fn(f32) -> f32) {
    for (bytes, code) in part.chunks_exact(T::BYTES).zip(codes) {
        *code = e4m3_from_f32(unscale(T::read_finite(bytes)));
    }
}

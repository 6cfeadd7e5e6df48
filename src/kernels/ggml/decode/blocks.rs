//! Blocks of 32 elements with one scale, some with a minimum too.

use super::super::pack::{f16_at, unpack_fifth_bits, unpack_nibbles};
use super::super::vector::Vector;

/// `d · (q − 8)`.
#[inline(always)]
pub(super) fn q4_0<V: Vector>(block: &[u8; 18], values: &mut [f32; 32]) {
    let d = V::splat(f16_at(block, 0));
    for (n, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        for (codes, values) in block[2..]
            .chunks_exact(V::LANES)
            .zip(values.chunks_exact_mut(V::LANES))
        {
            let codes = V::from_bits_of(codes, 4 * n as u32, 15);
            ((codes - V::splat(8.0)) * d).write(values);
        }
    }
}

/// `d · q + m`.
#[inline(always)]
pub(super) fn q4_1<V: Vector>(block: &[u8; 20], values: &mut [f32; 32]) {
    let (d, m) = (V::splat(f16_at(block, 0)), V::splat(f16_at(block, 2)));
    for (n, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        for (codes, values) in block[4..]
            .chunks_exact(V::LANES)
            .zip(values.chunks_exact_mut(V::LANES))
        {
            let codes = V::from_bits_of(codes, 4 * n as u32, 15);
            (codes * d + m).write(values);
        }
    }
}

/// `d · (q − 16)`.
#[inline(always)]
pub(super) fn q5_0<V: Vector>(block: &[u8; 22], values: &mut [f32; 32]) {
    let d = V::splat(f16_at(block, 0));
    let codes = five_bits(&block[6..], &block[2..6]);
    for (codes, values) in codes
        .chunks_exact(V::LANES)
        .zip(values.chunks_exact_mut(V::LANES))
    {
        let codes = V::from_bits_of(codes, 0, 31);
        ((codes - V::splat(16.0)) * d).write(values);
    }
}

/// `d · q + m`.
#[inline(always)]
pub(super) fn q5_1<V: Vector>(block: &[u8; 24], values: &mut [f32; 32]) {
    let (d, m) = (V::splat(f16_at(block, 0)), V::splat(f16_at(block, 2)));
    let codes = five_bits(&block[8..], &block[4..8]);
    for (codes, values) in codes
        .chunks_exact(V::LANES)
        .zip(values.chunks_exact_mut(V::LANES))
    {
        let codes = V::from_bits_of(codes, 0, 31);
        (codes * d + m).write(values);
    }
}

/// `d · q`.
#[inline(always)]
pub(super) fn q8_0<V: Vector>(block: &[u8; 34], values: &mut [f32; 32]) {
    let d = V::splat(f16_at(block, 0));
    for (codes, values) in block[2..]
        .chunks_exact(V::LANES)
        .zip(values.chunks_exact_mut(V::LANES))
    {
        (V::from_signed(codes) * d).write(values);
    }
}

/// Codes of five bits, of which the fifth ones are apart.
#[inline(always)]
fn five_bits(low: &[u8], high: &[u8]) -> [u8; 32] {
    let mut codes = unpack_nibbles(low);
    for (code, high) in codes.iter_mut().zip(unpack_fifth_bits(high)) {
        *code |= high;
    }
    codes
}

//! Super-blocks of 256 elements: scales of sub-blocks are whole numbers times one f16.

use super::super::pack::{f16_at, unpack_pairs_of_bits, unpack_scales, unpack_scales_and_mins};

/// The bytes from `at` on.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("within the block")
}

/// `(d · s) · q − (dmin · m)`, with a scale and a minimum of four bits for every 16 elements.
#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], values: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    let codes = unpack_pairs_of_bits(bytes(block, 16));
    for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[j] & 15);
        let min = dmin * f32::from(block[j] >> 4);
        for (l, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(codes[16 * j + l]) - min;
        }
    }
}

/// `(d · (s − 32)) · (q − 4)`, with a scale of six bits for every 16 elements. The third bits of
/// codes are apart: bit `k` of byte `l` is that of element `32 k + l`.
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], values: &mut [f32; 256]) {
    let third = bytes::<32>(block, 0);
    let codes = unpack_pairs_of_bits(bytes(block, 32));
    let scales = unpack_scales(bytes(block, 96));
    let d = f16_at(block, 108);
    for (k, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (half, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * (i32::from(scales[2 * k + half]) - 32) as f32;
            for (l, value) in values.iter_mut().enumerate() {
                let l = 16 * half + l;
                let code = codes[32 * k + l] | (third[l] >> k & 1) << 2;
                *value = scale * (i32::from(code) - 4) as f32;
            }
        }
    }
}

/// `(d · s) · q − (dmin · m)`, with a scale and a minimum of six bits for every 32 elements.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, mins) = unpack_scales_and_mins(bytes(block, 4));
    let low = block[16..].as_chunks::<32>().0;
    for (j, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[j]);
        let min = dmin * f32::from(mins[j]);
        for (value, codes) in values.iter_mut().zip(&low[j / 2]) {
            let code = codes >> (4 * (j % 2)) & 15;
            *value = scale * f32::from(code) - min;
        }
    }
}

/// As [`q4_k`], with the fifth bits of codes apart: bit `j` of byte `l` is that of element
/// `32 j + l`.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, mins) = unpack_scales_and_mins(bytes(block, 4));
    let fifth = bytes::<32>(block, 16);
    let low = block[48..].as_chunks::<32>().0;
    for (j, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[j]);
        let min = dmin * f32::from(mins[j]);
        for (l, value) in values.iter_mut().enumerate() {
            let code = low[j / 2][l] >> (4 * (j % 2)) & 15 | (fifth[l] >> j & 1) << 4;
            *value = scale * f32::from(code) - min;
        }
    }
}

/// `(d · s) · (q − 32)`, with an i8 scale for every 16 elements. Of each 128 elements, byte `l` of
/// the low nibbles holds those of `l` and `l + 64`, for `l` below 64.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let low = block[..128].as_chunks::<64>().0;
    let high = unpack_pairs_of_bits(bytes(block, 128));
    let d = f16_at(block, 208);
    for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + j] as i8);
        let (part, within) = (j / 8, 16 * j % 128);
        for (l, value) in values.iter_mut().enumerate() {
            let nibble = low[part][within % 64 + l] >> (4 * (within / 64)) & 15;
            let code = nibble | high[16 * j + l] << 4;
            *value = scale * (i32::from(code) - 32) as f32;
        }
    }
}

/// `(q − 1) · d`, codes of two bits.
#[inline(always)]
pub(super) fn tq2_0(block: &[u8; 66], values: &mut [f32; 256]) {
    let codes = unpack_pairs_of_bits(bytes(block, 0));
    let d = f16_at(block, 64);
    for (value, code) in values.iter_mut().zip(codes) {
        *value = (i32::from(code) - 1) as f32 * d;
    }
}

/// `(q − 1) · d`, five codes of base three in a byte, which is their number times 256/243, rounded
/// up: of 32 bytes, of 16, and four of four.
#[inline(always)]
pub(super) fn tq1_0(block: &[u8; 54], values: &mut [f32; 256]) {
    let d = f16_at(block, 52);
    let (first, rest) = values.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    for (bytes, values) in [
        (&block[..32], first),
        (&block[32..48], second),
        (&block[48..52], third),
    ] {
        let mut power = 1u8;
        for values in values.chunks_exact_mut(bytes.len()) {
            for (value, byte) in values.iter_mut().zip(bytes) {
                let code = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                *value = (i32::from(code) - 1) as f32 * d;
            }
            power = power.wrapping_mul(3);
        }
    }
}

//! How scales and codes are packed in bytes, in both directions.

use super::types::SUPER_BLOCK;
use crate::kernels::lanes::{f16_bits, f16_value};

/// The f16 at byte `at`, as f32.
#[inline(always)]
pub(super) fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_value(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Writes `x` as f16 to byte `at`. Returns the f16 as f32.
#[inline(always)]
pub(super) fn put_f16(block: &mut [u8], at: usize, x: f32) -> f32 {
    let bits = f16_bits(x);
    block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    f16_value(bits)
}

/// Twice the values of E2M1, by code.
pub(super) const MXFP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the power of two that `scale` is (E8M0): 2^(scale − 128). The two smallest are subnormal.
#[inline(always)]
pub(super) fn half_power(scale: u8) -> f32 {
    let exponent = u32::from(scale);
    f32::from_bits(match exponent {
        0 | 1 => 1 << (21 + exponent),
        _ => (exponent - 1) << 23,
    })
}

/// Codes of two bits: byte `l` of each 32 holds those of elements `l`, `l + 32`, `l + 64` and
/// `l + 96` of 128, lowest first.
#[inline(always)]
pub(super) fn unpack_pairs_of_bits(bytes: &[u8; 64]) -> [u8; SUPER_BLOCK] {
    let mut codes = [0; SUPER_BLOCK];
    let parts = codes.as_chunks_mut::<128>().0;
    for (bytes, codes) in bytes.as_chunks::<32>().0.iter().zip(parts) {
        for (l, byte) in bytes.iter().enumerate() {
            codes[l] = byte & 3;
            codes[l + 32] = byte >> 2 & 3;
            codes[l + 64] = byte >> 4 & 3;
            codes[l + 96] = byte >> 6;
        }
    }
    codes
}

/// The reverse of [`unpack_pairs_of_bits`]. Bits above the lowest two must be zero.
#[inline(always)]
pub(super) fn pack_pairs_of_bits(codes: &[u8; SUPER_BLOCK]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (bytes, codes) in bytes
        .as_chunks_mut::<32>()
        .0
        .iter_mut()
        .zip(codes.as_chunks::<128>().0)
    {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[l] | codes[l + 32] << 2 | codes[l + 64] << 4 | codes[l + 96] << 6;
        }
    }
    bytes
}

/// Eight scales and eight minima of six bits, as Q4_K and Q5_K hold them: of the first four each the
/// low bits of a byte, of the others the low four bits in the last four bytes and the high two above
/// those of the first four.
#[inline(always)]
pub(super) fn unpack_scales_and_mins(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = bytes[j] & 63;
        mins[j] = bytes[j + 4] & 63;
        scales[j + 4] = bytes[j + 8] & 15 | bytes[j] >> 6 << 4;
        mins[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// The reverse of [`unpack_scales_and_mins`].
#[inline(always)]
pub(super) fn pack_scales_and_mins(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for j in 0..4 {
        bytes[j] = scales[j] | scales[j + 4] >> 4 << 6;
        bytes[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        bytes[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    bytes
}

/// Sixteen scales of six bits, as Q3_K holds them: the low four bits in the nibbles of eight bytes,
/// the high two in the last four bytes, scale `j` in byte `j mod 4`.
#[inline(always)]
pub(super) fn unpack_scales(bytes: &[u8; 12]) -> [u8; 16] {
    std::array::from_fn(|j| {
        let low = bytes[j % 8] >> (4 * (j / 8)) & 15;
        let high = bytes[8 + j % 4] >> (2 * (j / 4)) & 3;
        low | high << 4
    })
}

/// The reverse of [`unpack_scales`].
#[inline(always)]
pub(super) fn pack_scales(scales: &[u8; 16]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (j, scale) in scales.iter().enumerate() {
        bytes[j % 8] |= (scale & 15) << (4 * (j / 8));
        bytes[8 + j % 4] |= scale >> 4 << (2 * (j / 4));
    }
    bytes
}

/// Codes of four bits of 32 elements: byte `j` of 16 holds those of `j` and `j + 16`.
#[inline(always)]
pub(super) fn unpack_nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut codes = [0; 32];
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

/// The reverse of [`unpack_nibbles`].
#[inline(always)]
pub(super) fn pack_nibbles(codes: &[u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = codes[j] | codes[j + 16] << 4;
    }
    bytes
}

/// The fifth bits of codes, in their place: that of element 0 is the lowest of four bytes.
#[inline(always)]
pub(super) fn unpack_fifth_bits(bytes: &[u8]) -> [u8; 32] {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut codes = [0; 32];
    for (j, code) in codes.iter_mut().enumerate() {
        *code = ((bits >> j & 1) << 4) as u8;
    }
    codes
}

/// The reverse of [`unpack_fifth_bits`].
#[inline(always)]
pub(super) fn pack_fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    // The product has bit `56 + i` from byte `i`, and nothing else there.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut bytes = [0; 4];
    for (byte, codes) in bytes.iter_mut().zip(codes.as_chunks::<8>().0) {
        let fifth = u64::from_le_bytes(*codes) >> 4 & 0x0101_0101_0101_0101;
        *byte = (fifth.wrapping_mul(GATHER) >> 56) as u8;
    }
    bytes
}

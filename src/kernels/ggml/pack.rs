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

/// Codes of two bits: byte `l` of each 32 holds those of elements `l`, `l + 32`, `l + 64` and
/// `l + 96` of 128, lowest first.
#[inline(always)]
pub(super) fn unpack_pairs_of_bits(bytes: &[u8; 64]) -> [u8; SUPER_BLOCK] {
    let mut codes = [0; SUPER_BLOCK];
    for (bytes, codes) in bytes
        .as_chunks::<32>()
        .0
        .iter()
        .zip(codes.as_chunks_mut::<128>().0)
    {
        for (part, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte >> (2 * part) & 3;
            }
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

/// Codes of four bits of 32 elements: byte `j` holds those of `j` and `j + 16`.
#[inline(always)]
pub(super) fn pack_nibbles(codes: &[u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = codes[j] | codes[j + 16] << 4;
    }
    bytes
}

/// The fifth bits of codes, that of element 0 lowest.
#[inline(always)]
pub(super) fn pack_fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let mut bits = 0;
    for (j, code) in codes.iter().enumerate() {
        bits |= u32::from(code >> 4 & 1) << j;
    }
    bits.to_le_bytes()
}

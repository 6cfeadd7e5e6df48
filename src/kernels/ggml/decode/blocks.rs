//! Blocks of 32 elements with one scale, some with a minimum too.

use super::super::pack::f16_at;

/// `d · (q − 8)`.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for j in 0..16 {
        let codes = block[2 + j];
        values[j] = (i32::from(codes & 15) - 8) as f32 * d;
        values[j + 16] = (i32::from(codes >> 4) - 8) as f32 * d;
    }
}

/// `d · q + m`.
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for j in 0..16 {
        let codes = block[4 + j];
        values[j] = f32::from(codes & 15) * d + m;
        values[j + 16] = f32::from(codes >> 4) * d + m;
    }
}

/// `d · (q − 16)`.
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let codes = five_bits(&block[2..6], &block[6..22]);
    for (value, code) in values.iter_mut().zip(codes) {
        *value = (i32::from(code) - 16) as f32 * d;
    }
}

/// `d · q + m`.
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let codes = five_bits(&block[4..8], &block[8..24]);
    for (value, code) in values.iter_mut().zip(codes) {
        *value = f32::from(code) * d + m;
    }
}

/// Codes of five bits: `high` holds the fifth bits, element 0 lowest, and each byte of `low` the
/// other bits of elements `j` and `j + 16`.
#[inline(always)]
fn five_bits(high: &[u8], low: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let mut codes = [0; 32];
    for j in 0..16 {
        codes[j] = low[j] & 15 | (high >> j << 4 & 16) as u8;
        codes[j + 16] = low[j] >> 4 | (high >> (j + 12) & 16) as u8;
    }
    codes
}

/// `d · q`.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (value, &code) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(code as i8) * d;
    }
}

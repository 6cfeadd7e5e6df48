//! Blocks of 32 elements with one scale, some with a minimum too.

use super::super::pack::{f16_at, unpack_fifth_bits, unpack_nibbles};

/// `d · (q − 8)`.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let codes = unpack_nibbles(&block[2..]);
    for (value, code) in values.iter_mut().zip(codes) {
        *value = (i32::from(code) - 8) as f32 * d;
    }
}

/// `d · q + m`.
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let codes = unpack_nibbles(&block[4..]);
    for (value, code) in values.iter_mut().zip(codes) {
        *value = f32::from(code) * d + m;
    }
}

/// `d · (q − 16)`.
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let low = unpack_nibbles(&block[6..]);
    let high = unpack_fifth_bits(&block[2..6]);
    for ((value, low), high) in values.iter_mut().zip(low).zip(high) {
        *value = (i32::from(low | high) - 16) as f32 * d;
    }
}

/// `d · q + m`.
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let low = unpack_nibbles(&block[8..]);
    let high = unpack_fifth_bits(&block[4..8]);
    for ((value, low), high) in values.iter_mut().zip(low).zip(high) {
        *value = f32::from(low | high) * d + m;
    }
}

/// `d · q`.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (value, &code) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(code as i8) * d;
    }
}

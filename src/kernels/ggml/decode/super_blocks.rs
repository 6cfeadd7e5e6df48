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
    let numbers = numbers(&unpack_pairs_of_bits(bytes(block, 16)), 0);
    for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[j] & 15);
        let min = dmin * f32::from(block[j] >> 4);
        for (value, number) in values.iter_mut().zip(&numbers[16 * j..]) {
            *value = scale * number - min;
        }
    }
}

/// `(d · (s − 32)) · (q − 4)`, with a scale of six bits for every 16 elements. The third bits of
/// codes are apart: bit `k` of byte `l` is that of element `32 k + l`.
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], values: &mut [f32; 256]) {
    let mut codes = unpack_pairs_of_bits(bytes(block, 32));
    add_bits(&mut codes, bytes(block, 0), 2);
    let scales = unpack_scales(bytes(block, 96));
    scaled(values, &numbers(&codes, 4), f16_at(block, 108), |j| {
        i32::from(scales[j]) - 32
    });
}

/// `(d · s) · q − (dmin · m)`, with a scale and a minimum of six bits for every 32 elements.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let codes = unpack_nibbles_of(32, &block[16..]);
    above_min(values, &codes, bytes(block, 0));
}

/// As [`q4_k`], with the fifth bits of codes apart: bit `j` of byte `l` is that of element
/// `32 j + l`.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let mut codes = unpack_nibbles_of(32, &block[48..]);
    add_bits(&mut codes, bytes(block, 16), 4);
    above_min(values, &codes, bytes(block, 0));
}

/// `(d · s) · (q − 32)`, with an i8 scale for every 16 elements.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let mut codes = unpack_nibbles_of(64, &block[..128]);
    let high = unpack_pairs_of_bits(bytes(block, 128));
    for (code, high) in codes.iter_mut().zip(high) {
        *code |= high << 4;
    }
    scaled(values, &numbers(&codes, 32), f16_at(block, 208), |j| {
        i32::from(block[192 + j] as i8)
    });
}

/// Codes of four bits: byte `l` of each `run` holds those of elements `l` and `l + run` of twice as
/// many.
#[inline(always)]
fn unpack_nibbles_of(run: usize, bytes: &[u8]) -> [u8; 256] {
    let mut codes = [0; 256];
    for (bytes, codes) in bytes.chunks_exact(run).zip(codes.chunks_exact_mut(2 * run)) {
        let (low, high) = codes.split_at_mut(run);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
    codes
}

/// Sets bit `to` of the codes: bit `k` of byte `l` is that of element `32 k + l`.
#[inline(always)]
fn add_bits(codes: &mut [u8; 256], bits: &[u8; 32], to: u32) {
    for (k, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, bits) in codes.iter_mut().zip(bits) {
            *code |= if bits & 1 << k == 0 { 0 } else { 1 << to };
        }
    }
}

/// The codes less `zero`.
#[inline(always)]
fn numbers(codes: &[u8; 256], zero: i32) -> [f32; 256] {
    let mut numbers = [0.0; 256];
    for (number, code) in numbers.iter_mut().zip(codes) {
        *number = (i32::from(*code) - zero) as f32;
    }
    numbers
}

/// Numbers times `d · s`, with `s` of every 16 elements.
#[inline(always)]
fn scaled(values: &mut [f32; 256], numbers: &[f32; 256], d: f32, scale: impl Fn(usize) -> i32) {
    for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * scale(j) as f32;
        for (value, number) in values.iter_mut().zip(&numbers[16 * j..]) {
            *value = scale * number;
        }
    }
}

/// `(d · s) · q − (dmin · m)`: `head` has `d`, `dmin`, and a scale and a minimum of every 32 elements.
#[inline(always)]
fn above_min(values: &mut [f32; 256], codes: &[u8; 256], head: &[u8; 16]) {
    let (d, dmin) = (f16_at(head, 0), f16_at(head, 2));
    let (scales, mins) = unpack_scales_and_mins(bytes(head, 4));
    let numbers = numbers(codes, 0);
    for (j, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[j]);
        let min = dmin * f32::from(mins[j]);
        for (value, number) in values.iter_mut().zip(&numbers[32 * j..]) {
            *value = scale * number - min;
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

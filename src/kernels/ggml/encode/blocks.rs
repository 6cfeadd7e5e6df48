//! Blocks of 32 elements with one scale, some with a minimum too, without weights. Values are finite.
//!
//! Codes are made with the scale before it is rounded to f16.

use super::super::pack::{MXFP4, half_power, pack_fifth_bits, pack_nibbles, put_f16};

/// `d = amax / 127`; the code of `x` is `x · (1/d)`, rounded to nearest, ties away from zero.
#[inline(always)]
pub(super) fn q8_0(values: &[f32; 32], block: &mut [u8; 34]) {
    let d = f32::from_bits(amax_bits(values)) / 127.0;
    put_f16(block, 0, d);
    let inverse = Inverse::of(d);
    for (code, x) in block[2..].iter_mut().zip(values) {
        // The float below 1/2 instead of it, lest what is just below the middle be rounded up.
        let away = f32::from_bits(0.5f32.to_bits() - 1).copysign(*x);
        let rounded = x * inverse.factor + away;
        *code = toward_zero(rounded, -128.0, 127.0) as u8 & inverse.mask;
    }
}

/// As [`signed`], of four bits.
#[inline(always)]
pub(super) fn q4_0(values: &[f32; 32], block: &mut [u8; 18]) {
    let (d, codes) = signed(values, 8.0);
    put_f16(block, 0, d);
    block[2..].copy_from_slice(&pack_nibbles(&codes));
}

/// As [`signed`], of five bits.
#[inline(always)]
pub(super) fn q5_0(values: &[f32; 32], block: &mut [u8; 22]) {
    let (d, codes) = signed(values, 16.0);
    put_f16(block, 0, d);
    block[2..6].copy_from_slice(&pack_fifth_bits(&codes));
    block[6..].copy_from_slice(&pack_nibbles(&codes.map(|code| code & 15)));
}

/// As [`above_min`], of four bits.
#[inline(always)]
pub(super) fn q4_1(values: &[f32; 32], block: &mut [u8; 20]) {
    let (d, min, codes) = above_min(values, 15.0);
    put_f16(block, 0, d);
    put_f16(block, 2, min);
    block[4..].copy_from_slice(&pack_nibbles(&codes));
}

/// As [`above_min`], of five bits.
#[inline(always)]
pub(super) fn q5_1(values: &[f32; 32], block: &mut [u8; 24]) {
    let (d, min, codes) = above_min(values, 31.0);
    put_f16(block, 0, d);
    put_f16(block, 2, min);
    block[4..8].copy_from_slice(&pack_fifth_bits(&codes));
    block[8..].copy_from_slice(&pack_nibbles(&codes.map(|code| code & 15)));
}

/// The scale is two powers below the one of the largest magnitude, and half of it counts, as codes are twice
/// the values of E2M1; the code of `x` is the first whose value is nearest.
#[inline(always)]
pub(super) fn mxfp4(values: &[f32; 32], block: &mut [u8; 17]) {
    let largest = f32::from_bits(amax_bits(values));
    let scale = match largest > 0.0 {
        // Rounded to f32 before it is cut, as the C library's function does: what is just below a power of two
        // may count as that power. Of the smallest numbers the scale wraps around, as in a conversion of x86.
        true => ((f64::from(largest).log2() as f32).floor() as i32 + 125) as u8,
        false => 0,
    };
    let half = half_power(scale);
    let mut codes = [0; 32];
    let mut errors = values.map(f32::abs);
    for (code, value) in (1..).zip(&MXFP4[1..]) {
        let value = f32::from(*value) * half;
        for ((x, error), best) in values.iter().zip(&mut errors).zip(&mut codes) {
            let here = (value - x).abs();
            if here < *error {
                (*error, *best) = (here, code);
            }
        }
    }
    block[0] = scale;
    block[1..].copy_from_slice(&pack_nibbles(&codes));
}

/// `d` is the first value of the largest magnitude over `−half`; the code of `x` is the whole part
/// of `x · (1/d) + half + 1/2`, below `2 half`.
#[inline(always)]
fn signed(values: &[f32; 32], half: f32) -> (f32, [u8; 32]) {
    let d = first_largest(values) / -half;
    let inverse = Inverse::of(d);
    let mut codes = [0; 32];
    for (code, x) in codes.iter_mut().zip(values) {
        let value = x * inverse.factor + (half + 0.5);
        *code = toward_zero(value, 0.0, 2.0 * half - 1.0) as u8 & inverse.mask;
    }
    (d, codes)
}

/// `d = (max − min) / most`; the code of `x` is the whole part of `(x − min) · (1/d) + 1/2`, at most
/// `most`. Returns `d` and `min` too.
#[inline(always)]
fn above_min(values: &[f32; 32], most: f32) -> (f32, f32, [u8; 32]) {
    // Of zeros of both signs the first counts; `f32::min` may take either.
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let min = values.iter().copied().fold(f32::MAX, smaller);
    let max = values.iter().copied().fold(f32::MIN, larger);
    let d = (max - min) / most;
    let inverse = Inverse::of(d);
    let mut codes = [0; 32];
    for (code, x) in codes.iter_mut().zip(values) {
        let value = (x - min) * inverse.factor + 0.5;
        *code = toward_zero(value, 0.0, most) as u8 & inverse.mask;
    }
    (d, min, codes)
}

/// `1/d`, and what is left of codes.
struct Inverse {
    factor: f32,
    /// If `1/d` is infinite, products are too, or NaN, and codes are then zero: what x86 makes of
    /// their conversion to integers. Else all bits stay.
    mask: u8,
}

impl Inverse {
    #[inline(always)]
    fn of(d: f32) -> Self {
        let factor = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mask = if factor.is_infinite() { 0 } else { 0xff };
        Inverse { factor, mask }
    }
}

/// The bits of the largest magnitude.
#[inline(always)]
fn amax_bits(values: &[f32; 32]) -> u32 {
    let magnitudes = values.iter().map(|x| x.to_bits() & 0x7fff_ffff);
    magnitudes.fold(0, u32::max)
}

/// The first value of the largest magnitude; of zeros, the one without sign.
#[inline(always)]
fn first_largest(values: &[f32; 32]) -> f32 {
    let amax = amax_bits(values);
    let mut first = 32;
    for (i, x) in values.iter().enumerate() {
        let is_it = x.to_bits() & 0x7fff_ffff == amax;
        first = first.min(if is_it { i as u32 } else { 32 });
    }
    values[first as usize % 32] + 0.0
}

/// The whole part of `x`, kept within `min` and `max`, which must be within i32; NaN is `max`.
#[inline(always)]
fn toward_zero(x: f32, min: f32, max: f32) -> i32 {
    let x = if x < max { x } else { max };
    let x = if x > min { x } else { min };
    // SAFETY: `x` is not NaN, and within `min` and `max`.
    unsafe { x.to_int_unchecked() }
}

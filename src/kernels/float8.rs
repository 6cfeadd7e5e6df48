//! FP8 numbers, by the OCP 8-bit floating point specification (E4M3) and the OCP microscaling
//! specification (E8M0).
//!
//! E4M3 as safetensors and torch have it (`float8_e4m3fn`): 1 sign, 4 exponent (bias 7) and 3
//! mantissa bits, no infinities, NaN = `S.1111.111`, largest value 448, smallest normal 2⁻⁶,
//! smallest subnormal 2⁻⁹.

/// The largest E4M3 value.
pub const E4M3_MAX: f32 = 448.0;

/// The E4M3 code nearest to `x`: ties to even, saturating at ±448, the sign of zero kept.
/// `x` must not be NaN.
#[inline(always)]
pub fn e4m3_from_f32(x: f32) -> u8 {
    const MIN_NORMAL: u32 = (127 - 6) << 23;
    // Its unit in the last place is 2⁻⁹, so adding it rounds to multiples of 2⁻⁹.
    const ROUND_SUBNORMAL: f32 = (1 << 14) as f32;
    const MANTISSA_SHIFT: u32 = 23 - 3;
    const BIAS_CHANGE: u32 = (127 - 7) << 3;

    let sign = (x.to_bits() >> 24) as u8 & 0x80;
    let magnitude = x.abs().min(E4M3_MAX);
    let bits = magnitude.to_bits();

    let round_half_even = (1 << (MANTISSA_SHIFT - 1)) - 1 + ((bits >> MANTISSA_SHIFT) & 1);
    let normal = ((bits + round_half_even) >> MANTISSA_SHIFT).wrapping_sub(BIAS_CHANGE);
    let subnormal = (magnitude + ROUND_SUBNORMAL)
        .to_bits()
        .wrapping_sub(ROUND_SUBNORMAL.to_bits());
    let code = if bits < MIN_NORMAL { subnormal } else { normal };
    sign | code as u8
}

/// The value of an E4M3 code.
pub fn e4m3_to_f32(code: u8) -> f32 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(code >> 3 & 0xf);
    let mantissa = f32::from(code & 7);
    match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * mantissa * 2f32.powi(-9),
        _ => sign * (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    }
}

/// The value of an E8M0 code: 2 to the power of `code - 127`; NaN for 255.
pub fn e8m0_to_f32(code: u8) -> f32 {
    const SUBNORMAL: u32 = 1 << 22; // 2⁻¹²⁷
    match code {
        0 => f32::from_bits(SUBNORMAL),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

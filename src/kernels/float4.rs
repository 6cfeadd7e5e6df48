//! FP4 numbers, by the OCP microscaling specification (E2M1): 1 sign, 2 exponent (bias 1) and 1 mantissa
//! bit, no infinities and no NaN. The magnitudes of the codes 0 to 7 are 0, 0.5, 1, 1.5, 2, 3, 4 and 6; a
//! code with 8 added is the negative number.
//!
//! Two codes are in a byte, the first in its lower half.

/// The largest E2M1 value.
pub const E2M1_MAX: f32 = 6.0;

/// The value of an E2M1 code, of which only the lower four bits count.
#[inline(always)]
pub fn e2m1_to_f32(code: u8) -> f32 {
    // Twice the magnitude: the steps between magnitudes double at 4 and at 6. Without a table, compilers make vector code.
    let at = code & 7;
    let twice = at + at.saturating_sub(4) + 2 * at.saturating_sub(6);
    let magnitude = f32::from(twice) * 0.5;
    f32::from_bits(magnitude.to_bits() | u32::from(code & 8) << 28)
}

/// What becomes of a quotient that is exactly between two magnitudes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// The one whose mantissa bit is 0.
    Even,
    /// The smaller one.
    TowardZero,
    /// The larger one.
    Away,
}

/// The E2M1 magnitude, 0 to 7, nearest to `|x|`, at most that of 6. `x` must not be NaN.
#[inline(always)]
pub fn e2m1_magnitude(x: f32, ties: Ties) -> u8 {
    const ONE: u32 = 127 << 23;
    const MANTISSA_SHIFT: u32 = 23 - 1;
    const BIAS_CHANGE: u32 = (127 - 1) << 1;
    let magnitude = x.abs();
    let magnitude = if magnitude < E2M1_MAX {
        magnitude
    } else {
        E2M1_MAX
    };
    let bits = magnitude.to_bits();
    let below_half = (1 << (MANTISSA_SHIFT - 1)) - 1;
    let (upward, quarter, three_quarters) = match ties {
        Ties::Even => (
            below_half + (bits >> MANTISSA_SHIFT & 1),
            magnitude > 0.25,
            magnitude >= 0.75,
        ),
        Ties::TowardZero => (below_half, magnitude > 0.25, magnitude > 0.75),
        Ties::Away => (below_half + 1, magnitude >= 0.25, magnitude >= 0.75),
    };
    let normal = ((bits + upward) >> MANTISSA_SHIFT).wrapping_sub(BIAS_CHANGE);
    let subnormal = u32::from(quarter) + u32::from(three_quarters);
    (if bits < ONE { subnormal } else { normal }) as u8
}

//! FP4 numbers, by the OCP microscaling specification (E2M1): 1 sign, 2 exponent (bias 1) and 1 mantissa
//! bit, no infinities and no NaN. The magnitudes of the codes 0 to 7 are 0, 0.5, 1, 1.5, 2, 3, 4 and 6; a
//! code with 8 added is the negative number.
//!
//! Two codes are in a byte, the first in its lower half.

use crate::kernels::{CpuPath, Loop};

/// The largest E2M1 value.
pub const E2M1_MAX: f32 = 6.0;

/// The value of an E2M1 code, of which only the lower four bits count.
#[inline(always)]
pub fn e2m1_to_f32(code: u8) -> f32 {
    half(twice(code & 0xf))
}

/// Twice the magnitude of a code of four bits, as an integer, with the sign in the highest bit.
#[inline(always)]
fn twice(code: u8) -> u8 {
    // The steps between magnitudes double at 4 and at 6. Without a table, compilers make vector code of it.
    let at = code & 7;
    let magnitude = at + at.saturating_sub(4) + 2 * at.saturating_sub(6);
    magnitude | (code & 8) << 4
}

/// Half of an integer of 7 bits with its sign in the highest bit: there is a negative zero.
#[inline(always)]
pub(crate) fn half(byte: u8) -> f32 {
    let magnitude = f32::from(byte & 0x7f) * 0.5;
    f32::from_bits(magnitude.to_bits() | u32::from(byte & 0x80) << 24)
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

/// Writes twice the value of each of the codes in `packed`, as integers of 7 bits with the sign in the highest bit.
///
/// # Panics
/// If `values` does not have two elements for each byte, or this processor cannot run `path`.
pub fn unpack_e2m1(packed: &[u8], values: &mut [u8], path: CpuPath) {
    assert_eq!(values.len(), packed.len() * 2);
    path.run(Unpacking { packed, values });
}

struct Unpacking<'a> {
    packed: &'a [u8],
    values: &'a mut [u8],
}

impl Loop for Unpacking<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let pairs = self.values.as_chunks_mut::<2>().0;
        for (pair, packed) in pairs.iter_mut().zip(self.packed) {
            *pair = [twice(packed & 0xf), twice(packed >> 4)];
        }
    }
}

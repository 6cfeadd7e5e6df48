//! Codes without division: for one scale, what to add to the bits of an element so that its top
//! bits become its code.
//!
//! With the sign cleared, an element is an exponent above a mantissa, and so is a normal E4M3
//! number. Cut the mantissas into 16 segments by their top 4 bits. In each of them the code of
//! `x / scale` grows by one at most once, as `x` grows:
//!
//! - With exponents taken away, `1 ≤ x < 2`, `1 ≤ scale < 2` and `1/2 < x / scale < 2`. The first
//!   and the last `x` of a segment are at most `1/16 − 2⁻²³` apart (in f32, less in shorter types),
//!   and so are their quotients.
//! - The places where a code ends, in the middle between E4M3 numbers, are 1/16 apart below 1,
//!   3/32 around 1 and 1/8 above 1.
//! - Quotients are first rounded to f32, which moves these places by at most 2⁻²⁵ where they are
//!   1/16 apart. So they remain at least `1/16 − 2⁻²⁴` apart, more than a segment is long.
//!
//! So for each segment there is a number that, added to the bits of an element, carries into the
//! code exactly where the code grows. It is found with the same division and rounding that define
//! the code. While quotients are normal E4M3 numbers, they and their rounding are the same at
//! every exponent; codes of smaller quotients must be found by division.

use super::element::Element;
use super::scales::exact_reciprocal;
use crate::kernels::float8::e4m3_from_f32;

pub(super) const SEGMENTS: usize = 16;

/// What lanes need that hold elements as numbers of a type `L`, the elements' own or a wider one.
/// For magnitudes of `smallest_normal` or more, and at most 448 scales:
/// `code = (bits + addends[top 4 mantissa bits]) >> (L::MANTISSA_BITS - 3)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounding {
    /// For lanes of 16 bits, these fit into 16.
    pub(super) addends: [i32; SEGMENTS],
    /// Magnitude bits of the smallest normal number with a quotient of at least 2⁻⁶.
    pub(super) smallest_normal: u32,
}

impl Rounding {
    /// The table of a scale, which must be normal, for elements `T`.
    #[inline(always)]
    pub(super) fn new<T: Element, L: Element>(scale: f32) -> Rounding {
        const F32_MANTISSA_BITS: u32 = f32::MANTISSA_DIGITS - 1;
        const F32_BIAS: i32 = 127;
        const MIN_NORMAL_EXPONENT: i32 = -6;
        let narrowing = F32_MANTISSA_BITS - L::MANTISSA_BITS;
        let mantissa = scale.to_bits() & ((1 << F32_MANTISSA_BITS) - 1);
        // The exponent field of numbers that differ from `scale` in the mantissa only.
        let exponent = (scale.to_bits() >> F32_MANTISSA_BITS) as i32 - F32_BIAS + L::EXPONENT_BIAS;
        let mut addends = match exact_reciprocal(scale) {
            Some(_) => half_to_even::<T>(),
            None => by_division::<T>(f32::from_bits(1f32.to_bits() | mantissa)),
        };
        for addend in &mut addends {
            *addend <<= L::MANTISSA_BITS - T::MANTISSA_BITS;
            *addend -= exponent << L::MANTISSA_BITS;
        }
        let rounded_up = (mantissa + (1 << narrowing) - 1) >> narrowing;
        let smallest = ((exponent + MIN_NORMAL_EXPONENT) << L::MANTISSA_BITS) + rounded_up as i32;
        Rounding {
            addends,
            smallest_normal: smallest.max(1 << L::MANTISSA_BITS) as u32,
        }
    }
}

/// Bits of an element's mantissa that a code has no room for.
const fn dropped<T: Element>() -> u32 {
    T::MANTISSA_BITS - 3
}

/// The code of 1.
const CODE_OF_ONE: i32 = 7 << 3;

/// Addends for scale 1, without the exponent: rounding half to even.
#[inline(always)]
fn half_to_even<T: Element>() -> [i32; SEGMENTS] {
    let half = 1 << (dropped::<T>() - 1);
    std::array::from_fn(|segment| {
        let odd = segment as i32 >> 1 & 1;
        (CODE_OF_ONE << dropped::<T>()) + half - 1 + odd
    })
}

/// Addends for a scale of at least 1 and below 2, without the exponent. The loops over segments
/// are for compilers to vectorize.
#[inline(always)]
fn by_division<T: Element>(scale: f32) -> [i32; SEGMENTS] {
    let segment_bits = T::MANTISSA_BITS - 4;
    let widening = f32::MANTISSA_DIGITS - 1 - T::MANTISSA_BITS;
    let code = |mantissa: i32| {
        let x = f32::from_bits(1f32.to_bits() | (mantissa as u32) << widening);
        i32::from(e4m3_from_f32(x / scale))
    };
    // The last mantissa of each segment that has the same code as the first.
    let starts: [i32; SEGMENTS] = std::array::from_fn(|segment| (segment as i32) << segment_bits);
    let codes = starts.map(code);
    let mut last = starts;
    for bit in (0..segment_bits).rev() {
        for (last, first_code) in last.iter_mut().zip(codes) {
            let next = *last | 1 << bit;
            *last = if code(next) == first_code {
                next
            } else {
                *last
            };
        }
    }
    std::array::from_fn(|i| ((codes[i] + 1) << dropped::<T>()) - (last[i] + 1))
}

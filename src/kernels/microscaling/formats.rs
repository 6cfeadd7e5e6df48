//! The formats, a type for each.

use crate::kernels::float4::{E2M1_MAX, Ties, e2m1_magnitude};
use crate::kernels::float8::{E4M3_MAX, e4m3_from_f32, e4m3_to_f32};

/// What codes are, and which of them a quotient has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    E4m3,
    E2m1(Ties, Sign),
}

/// Which codes of FP4 have a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Those of negative numbers: not of −0.
    IfBelowZero,
    /// All but those of positive numbers: both zeros are negative.
    UnlessAboveZero,
    /// Those of numbers with a sign, also of −0.
    Kept,
}

impl Codes {
    /// The code of a quotient.
    #[inline(always)]
    pub(super) fn of(self, quotient: f32) -> u8 {
        let Codes::E2m1(ties, sign) = self else {
            return e4m3_from_f32(quotient);
        };
        let sign = match sign {
            Sign::IfBelowZero => u8::from(quotient < 0.0) << 3,
            Sign::UnlessAboveZero => 8 - (u8::from(quotient > 0.0) << 3),
            Sign::Kept => (quotient.to_bits() >> 28) as u8 & 8,
        };
        e2m1_magnitude(quotient, ties) | sign
    }
}

/// How scales and codes of a group are chosen.
pub trait Format {
    /// Bits of a code.
    const BITS: usize;
    /// Columns that share a scale.
    const GROUP: usize;
    const CODES: Codes;
    /// Whether elements are divided by what [`Format::scale`] gives, and not multiplied.
    const DIVIDES: bool = false;

    /// What all groups of a weight share, by the largest magnitude of all numbers that it is for.
    fn global(_amax: f32) -> f32 {
        1.0
    }

    /// The byte of the scale of a group whose largest magnitude is `amax`, and by what its elements
    /// are multiplied or divided.
    fn scale(amax: f32, global: f32) -> (u8, f32);
}

/// MXFP4 as compressed-tensors makes it.
#[derive(Debug)]
pub enum Mxfp4 {}

/// MXFP4 as ModelOpt makes it.
#[derive(Debug)]
pub enum Mxfp4Modelopt {}

/// MXFP4 as OpenAI's Triton kernels, which transformers uses for gpt-oss, make it.
#[derive(Debug)]
pub enum Mxfp4Triton {}

/// MXFP8 as compressed-tensors makes it.
#[derive(Debug)]
pub enum Mxfp8 {}

/// MXFP8 as ModelOpt makes it.
#[derive(Debug)]
pub enum Mxfp8Modelopt {}

/// NVFP4 as compressed-tensors makes it.
#[derive(Debug)]
pub enum Nvfp4 {}

/// NVFP4 as ModelOpt makes it.
#[derive(Debug)]
pub enum Nvfp4Modelopt {}

/// The columns of a group of MXFP4 and MXFP8, and of NVFP4.
const MX_GROUP: usize = 32;
const NV_GROUP: usize = 16;

const MANTISSA_BITS: u32 = f32::MANTISSA_DIGITS - 1;
const MANTISSA: u32 = (1 << MANTISSA_BITS) - 1;

/// `1 / 2^(code − 127)`. Multiplying by it is dividing by the power of two: both round the same number.
#[inline(always)]
fn reciprocal(code: u32) -> f32 {
    const SUBNORMAL: u32 = 1 << 22; // 2⁻¹²⁷
    f32::from_bits(if code == 254 {
        SUBNORMAL
    } else {
        (254 - code) << MANTISSA_BITS
    })
}

/// Of infinity, which is an error once its place is found, the largest.
#[inline(always)]
fn power_of_two(code: u32) -> (u8, f32) {
    let code = code.min(254);
    (code as u8, reciprocal(code))
}

/// The exponent of `amax` less `offset`, of which one more is taken from 1.75 · 2ⁿ on.
#[inline(always)]
fn floor(amax: f32, offset: u32) -> (u8, f32) {
    const QUARTER: u32 = 1 << (MANTISSA_BITS - 2);
    let exponent = (amax.to_bits() + QUARTER) >> MANTISSA_BITS;
    power_of_two(exponent.saturating_sub(offset))
}

/// The exponent of the smallest power of two that is not below `x`, plus 127; at least 1 unless `x` is 0.
#[inline(always)]
fn ceiling(x: f32) -> u32 {
    (x.to_bits() + MANTISSA) >> MANTISSA_BITS
}

/// `⌈log₂ x⌉` plus 127 of the logarithm rounded to f32, at least 0: a number that is just above 2ⁿ has the
/// logarithm n if the difference is less than half of what f32 numbers near n are apart.
#[inline(always)]
fn rounded_ceiling(x: f32) -> u32 {
    let bits = x.to_bits();
    let exponent = bits >> MANTISSA_BITS;
    // The distance of n from 0, and its exponent, by conversion to f32: compilers make vector code of it.
    let size = ((exponent as i32 - 127).abs() as f32).to_bits();
    let scale = (size >> MANTISSA_BITS).saturating_sub(127);
    // Below −2ᵉ, numbers are half as far apart.
    let is_edge = exponent < 127 && size & MANTISSA == 0;
    let scale = scale.saturating_sub(u32::from(is_edge)).min(6);
    // The largest mantissa that is lost is `ln 2 · 2^(e − 1)`: 22 of the largest e, 6.
    let lost = if exponent == 127 {
        0
    } else {
        22 >> (6 - scale)
    };
    let above = exponent + u32::from(bits & MANTISSA > lost);
    // Of subnormal numbers: above 2⁻¹²⁷, or not.
    let of_subnormal = u32::from(bits > 1 << (MANTISSA_BITS - 1));
    if exponent == 0 { of_subnormal } else { above }
}

impl Format for Mxfp4 {
    const BITS: usize = 4;
    const GROUP: usize = MX_GROUP;
    const CODES: Codes = Codes::E2m1(Ties::Even, Sign::IfBelowZero);

    #[inline(always)]
    fn scale(amax: f32, _: f32) -> (u8, f32) {
        floor(amax, 2)
    }
}

impl Format for Mxfp4Modelopt {
    const BITS: usize = 4;
    const GROUP: usize = MX_GROUP;
    const CODES: Codes = Codes::E2m1(Ties::TowardZero, Sign::UnlessAboveZero);

    #[inline(always)]
    fn scale(amax: f32, _: f32) -> (u8, f32) {
        power_of_two(rounded_ceiling(amax / E2M1_MAX))
    }
}

impl Format for Mxfp4Triton {
    const BITS: usize = 4;
    const GROUP: usize = MX_GROUP;
    const CODES: Codes = Codes::E2m1(Ties::Away, Sign::Kept);

    #[inline(always)]
    fn scale(amax: f32, _: f32) -> (u8, f32) {
        power_of_two(ceiling(amax / E2M1_MAX))
    }
}

impl Format for Mxfp8 {
    const BITS: usize = 8;
    const GROUP: usize = MX_GROUP;
    const CODES: Codes = Codes::E4m3;

    #[inline(always)]
    fn scale(amax: f32, _: f32) -> (u8, f32) {
        floor(amax, 8)
    }
}

impl Format for Mxfp8Modelopt {
    const BITS: usize = 8;
    const GROUP: usize = MX_GROUP;
    const CODES: Codes = Codes::E4m3;

    #[inline(always)]
    fn scale(amax: f32, _: f32) -> (u8, f32) {
        power_of_two(rounded_ceiling(amax / E4M3_MAX))
    }
}

impl Format for Nvfp4 {
    const BITS: usize = 4;
    const GROUP: usize = NV_GROUP;
    const CODES: Codes = Codes::E2m1(Ties::Even, Sign::IfBelowZero);
    const DIVIDES: bool = true;

    /// `G`, by which stored scales are too large.
    fn global(amax: f32) -> f32 {
        // torch divides a number by a tensor so.
        let global = amax.max(f32::MIN_POSITIVE).recip() * (E4M3_MAX * E2M1_MAX);
        if global.is_finite() { global } else { 1.0 }
    }

    #[inline(always)]
    fn scale(amax: f32, global: f32) -> (u8, f32) {
        /// 0.125
        const EPSILON: u8 = 4 << 3;
        let code = e4m3_from_f32(global * (amax / E2M1_MAX));
        let code = if code == 0 { EPSILON } else { code };
        (code, positive_e4m3(code) / global)
    }
}

impl Format for Nvfp4Modelopt {
    const BITS: usize = 4;
    const GROUP: usize = NV_GROUP;
    const CODES: Codes = Codes::E2m1(Ties::Even, Sign::IfBelowZero);
    const DIVIDES: bool = true;

    /// `g`, by which stored scales are too small. Of zeros it is 1, where ModelOpt has no number.
    fn global(amax: f32) -> f32 {
        let global = amax / (E2M1_MAX * E4M3_MAX);
        if global > 0.0 { global } else { 1.0 }
    }

    #[inline(always)]
    fn scale(amax: f32, global: f32) -> (u8, f32) {
        const SMALLEST: f32 = 1.0 / 512.0; // 2⁻⁹
        let scale = amax / (E2M1_MAX * global);
        let scale = if scale == 0.0 { 1.0 } else { scale };
        let code = e4m3_from_f32(if scale > SMALLEST { scale } else { SMALLEST });
        (code, positive_e4m3(code) * global)
    }
}

/// The value of a positive E4M3 code, as vector code.
#[inline(always)]
fn positive_e4m3(code: u8) -> f32 {
    const REBIAS: f32 = f32::from_bits((127 + 127 - 7) << 23);
    debug_assert_eq!(
        f32::from_bits(u32::from(code) << 20) * REBIAS,
        e4m3_to_f32(code)
    );
    f32::from_bits(u32::from(code) << 20) * REBIAS
}

//! The element types that can be quantized.

use half::{bf16, f16};

use crate::kernels::lanes::{self, Precision};

/// An element type that can be quantized; every value is exact in f32.
pub trait Element: Copy + 'static {
    /// Bytes of one element.
    const BYTES: usize;
    /// Which type it is, for loops that are written for one.
    const PRECISION: Precision;
    /// Bits of the mantissa, without the leading one.
    const MANTISSA_BITS: u32;
    /// The exponent field of 1.
    const EXPONENT_BIAS: i32;
    /// The distance from 1 to the next number.
    const EPSILON: f32;

    /// The value of one little-endian element.
    fn read(bytes: &[u8]) -> f32;

    /// The same for a finite element, without branches.
    fn read_finite(bytes: &[u8]) -> f32;

    /// The bits of one element without its sign. Magnitudes order like their bits, with every NaN
    /// above infinity.
    fn magnitude_bits(bytes: &[u8]) -> u32;

    /// A number that orders as the elements do, with NaNs of either sign at the ends.
    fn order(bytes: &[u8]) -> i32;

    /// The value of [`Element::order`].
    fn from_order(order: i32) -> f32;

    /// The nearest number of this type, ties to even.
    fn round(x: f32) -> f32;

    /// The value of [`Element::magnitude_bits`].
    fn from_magnitude_bits(bits: u32) -> f32;
}

fn u16_of(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The bits of a 16-bit float as a number that orders like it, and back.
#[inline(always)]
fn order16(bits: i16) -> i16 {
    bits ^ (bits >> 15 & 0x7fff)
}

impl Element for bf16 {
    const BYTES: usize = 2;
    const PRECISION: Precision = Precision::Bf16;
    const MANTISSA_BITS: u32 = 7;
    const EXPONENT_BIAS: i32 = 127;
    const EPSILON: f32 = 1.0 / 128.0;

    #[inline(always)]
    fn order(bytes: &[u8]) -> i32 {
        i32::from(order16(u16_of(bytes) as i16))
    }

    #[inline(always)]
    fn from_order(order: i32) -> f32 {
        f32::from_bits(u32::from(order16(order as i16) as u16) << 16)
    }

    #[inline(always)]
    fn round(x: f32) -> f32 {
        lanes::bf16_value(lanes::bf16_bits(x))
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        f32::from_bits(u32::from(u16_of(bytes)) << 16)
    }

    #[inline(always)]
    fn read_finite(bytes: &[u8]) -> f32 {
        Self::read(bytes)
    }

    #[inline(always)]
    fn magnitude_bits(bytes: &[u8]) -> u32 {
        u32::from(u16_of(bytes) & 0x7fff)
    }

    fn from_magnitude_bits(bits: u32) -> f32 {
        f32::from_bits(bits << 16)
    }
}

impl Element for f16 {
    const BYTES: usize = 2;
    const PRECISION: Precision = Precision::F16;
    const MANTISSA_BITS: u32 = 10;
    const EXPONENT_BIAS: i32 = 15;
    const EPSILON: f32 = 1.0 / 1024.0;

    #[inline(always)]
    fn order(bytes: &[u8]) -> i32 {
        i32::from(order16(u16_of(bytes) as i16))
    }

    #[inline(always)]
    fn from_order(order: i32) -> f32 {
        f16::from_bits(order16(order as i16) as u16).to_f32()
    }

    #[inline(always)]
    fn round(x: f32) -> f32 {
        lanes::f16_value(lanes::f16_bits(x))
    }

    fn read(bytes: &[u8]) -> f32 {
        f16::from_bits(u16_of(bytes)).to_f32()
    }

    #[inline(always)]
    fn read_finite(bytes: &[u8]) -> f32 {
        // The exponent biases differ by 112, and the product is exact, also for subnormals.
        const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
        let bits = u32::from(u16_of(bytes));
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
        f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn magnitude_bits(bytes: &[u8]) -> u32 {
        u32::from(u16_of(bytes) & 0x7fff)
    }

    fn from_magnitude_bits(bits: u32) -> f32 {
        f16::from_bits(bits as u16).to_f32()
    }
}

impl Element for f32 {
    const BYTES: usize = 4;
    const PRECISION: Precision = Precision::F32;
    const MANTISSA_BITS: u32 = 23;
    const EXPONENT_BIAS: i32 = 127;
    const EPSILON: f32 = f32::EPSILON;

    #[inline(always)]
    fn order(bytes: &[u8]) -> i32 {
        let bits = u32_of(bytes) as i32;
        bits ^ (bits >> 31 & 0x7fff_ffff)
    }

    #[inline(always)]
    fn from_order(order: i32) -> f32 {
        f32::from_bits((order ^ (order >> 31 & 0x7fff_ffff)) as u32)
    }

    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        f32::from_bits(u32_of(bytes))
    }

    #[inline(always)]
    fn read_finite(bytes: &[u8]) -> f32 {
        Self::read(bytes)
    }

    #[inline(always)]
    fn magnitude_bits(bytes: &[u8]) -> u32 {
        u32_of(bytes) & 0x7fff_ffff
    }

    fn from_magnitude_bits(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
}

//! Floating point types as they are stored: read exactly as f32, written rounded to nearest even.

use half::{bf16, f16};

use crate::kernels::lanes;

/// An element type of weights. Every value is exact in f32.
pub trait Float: Copy + 'static {
    /// Bytes of one element.
    const BYTES: usize;

    /// The value of one little-endian element.
    fn read(bytes: &[u8]) -> f32;

    /// Writes `value`, rounded to nearest even; a NaN becomes the quiet one without payload.
    fn write(value: f32, bytes: &mut [u8]);

    /// The number of this type that is nearest to `value`, ties to even.
    fn round(value: f32) -> f32;
}

impl Float for bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        lanes::bf16_value(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    #[inline(always)]
    fn write(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&lanes::bf16_bits(lanes::plain_nan(value)).to_le_bytes());
    }

    #[inline(always)]
    fn round(value: f32) -> f32 {
        lanes::bf16_value(lanes::bf16_bits(value))
    }
}

impl Float for f16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        lanes::f16_value(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    #[inline(always)]
    fn write(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&lanes::f16_bits(lanes::plain_nan(value)).to_le_bytes());
    }

    #[inline(always)]
    fn round(value: f32) -> f32 {
        lanes::f16_value(lanes::f16_bits(value))
    }
}

impl Float for f32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    #[inline(always)]
    fn write(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }

    #[inline(always)]
    fn round(value: f32) -> f32 {
        value
    }
}

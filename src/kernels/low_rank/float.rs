//! Floating point types as they are stored: read exactly as f32, written rounded to nearest even.
//! Nothing branches, so that loops over them vectorize.

use half::{bf16, f16};

/// An element type of weights. Every value is exact in f32.
pub trait Float: Copy + 'static {
    /// Bytes of one element.
    const BYTES: usize;

    /// The value of one little-endian element.
    fn read(bytes: &[u8]) -> f32;

    /// Writes `value`, rounded to nearest even; a NaN becomes the quiet one without payload.
    fn write(value: f32, bytes: &mut [u8]);

    /// The number of this type that is nearest to `value`, ties to even.
    fn round(value: f32) -> f32 {
        let mut bytes = [0; 4];
        Self::write(value, &mut bytes[..Self::BYTES]);
        Self::read(&bytes[..Self::BYTES])
    }
}

impl Float for bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
    }

    #[inline(always)]
    fn write(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&to_bf16(value).to_le_bytes());
    }

    #[inline(always)]
    fn round(value: f32) -> f32 {
        f32::from_bits(u32::from(to_bf16(value)) << 16)
    }
}

#[inline(always)]
fn to_bf16(value: f32) -> u16 {
    const QUIET_NAN: u32 = 0x7fc0 << 16;
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let bits = if value.is_nan() { QUIET_NAN } else { rounded };
    (bits >> 16) as u16
}

impl Float for f16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> f32 {
        // The exponent biases differ by 112, and the product is exact, also for subnormals.
        const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
        const INFINITY: u32 = 0x7c00;
        let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        let magnitude = bits & 0x7fff;
        let finite = (f32::from_bits(magnitude << 13) * REBIAS).to_bits();
        let all_ones = magnitude << 13 | 0xff << 23;
        let wide = if magnitude >= INFINITY {
            all_ones
        } else {
            finite
        };
        f32::from_bits(wide | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn write(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&to_f16(value).to_le_bytes());
    }
}

#[inline(always)]
fn to_f16(value: f32) -> u16 {
    const INFINITY: u32 = 0x7c00;
    const QUIET_NAN: u32 = 0x7e00;
    /// The smallest normal number, as f32.
    const NORMAL: u32 = (127 - 14) << 23;
    /// A number whose last bit is worth as much as that of a subnormal.
    const STEPS: f32 = 0.5;
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let normal = magnitude
        .wrapping_sub(112 << 23)
        .wrapping_add(0xfff + (magnitude >> 13 & 1))
        >> 13;
    let subnormal = (f32::from_bits(magnitude) + STEPS)
        .to_bits()
        .wrapping_sub(STEPS.to_bits());
    let finite = if magnitude < NORMAL {
        subnormal
    } else {
        normal
    };
    let number = if magnitude >= 0x4780_0000 {
        INFINITY
    } else {
        finite
    };
    if value.is_nan() {
        return QUIET_NAN as u16;
    }
    (number | (bits >> 16 & 0x8000)) as u16
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

//! Block quantization to E4M3, one block of a row-major matrix at a time.
//!
//! A block has one scale `s`; the code of `x` is `e4m3(f32(x) / s)`, rounded to nearest even and
//! saturated at ±448. With `amax` the largest magnitude of the block:
//!
//! - power-of-two scales: `s` is the smallest power of two with `amax / s ≤ 448`;
//! - exact scales: `s = f32(f64(amax) / 448)`.
//!
//! Neither is ever below 2⁻¹²⁶, and a block of zeros has `s = 1`.

use std::ops::Range;

use half::{bf16, f16};

use crate::tensor::float8::{E4M3_MAX, e4m3_from_f32};

/// How a block's scale is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleFormat {
    /// A power of two, as `scale_fmt: "ue8m0"` promises.
    #[default]
    Ue8m0,
    /// Any f32.
    Float32,
}

/// An element type that can be quantized.
pub trait Element: Copy {
    /// Bytes of one element.
    const BYTES: usize;

    /// The value of one little-endian element; every element is exact in f32.
    fn read(bytes: &[u8]) -> f32;
}

macro_rules! element {
    ($type:ty, $bytes:literal, $to_f32:expr) => {
        impl Element for $type {
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn read(bytes: &[u8]) -> f32 {
                let mut array = [0; $bytes];
                array.copy_from_slice(bytes);
                $to_f32(<$type>::from_le_bytes(array))
            }
        }
    };
}

element!(bf16, 2, |x: bf16| f32::from_bits(
    u32::from(x.to_bits()) << 16
));
element!(f16, 2, f16::to_f32);
element!(f32, 4, |x| x);

/// Where a block lies in a matrix of `columns` columns.
#[derive(Debug, Clone)]
pub struct Block {
    pub columns: usize,
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

/// A NaN or infinity at a row and column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NonFiniteAt {
    pub row: usize,
    pub column: usize,
    pub value: f32,
}

/// Quantizes one block of `source`, a matrix of little-endian `T`, into `codes`, a matrix of the
/// same shape; returns the block's scale.
///
/// # Errors
/// The first NaN or infinity of the block, in which case no code is written.
pub fn quantize_block<T: Element>(
    source: &[u8],
    codes: &mut [u8],
    block: &Block,
    format: ScaleFormat,
) -> Result<f32, NonFiniteAt> {
    let amax = block_amax::<T>(source, block);
    if !amax.is_finite() {
        return Err(first_non_finite::<T>(source, block));
    }
    let scale = match format {
        ScaleFormat::Ue8m0 => power_of_two_scale(amax),
        ScaleFormat::Float32 => exact_scale(amax),
    };
    for row in block.rows.clone() {
        let (from, codes) = row_of::<T>(source, codes, block, row);
        for (bytes, code) in from.chunks_exact(T::BYTES).zip(codes) {
            *code = e4m3_from_f32(T::read(bytes) / scale);
        }
    }
    Ok(scale)
}

/// The largest magnitude of a block; infinite or NaN if any element is.
fn block_amax<T: Element>(source: &[u8], block: &Block) -> f32 {
    // Magnitudes order like their bits, and every NaN is above every number.
    let mut amax = 0;
    for row in block.rows.clone() {
        let start = row * block.columns;
        let range = (start + block.cols.start) * T::BYTES..(start + block.cols.end) * T::BYTES;
        for bytes in source[range].chunks_exact(T::BYTES) {
            amax = amax.max(T::read(bytes).to_bits() & 0x7fff_ffff);
        }
    }
    f32::from_bits(amax)
}

fn row_of<'s, 'c, T: Element>(
    source: &'s [u8],
    codes: &'c mut [u8],
    block: &Block,
    row: usize,
) -> (&'s [u8], &'c mut [u8]) {
    let start = row * block.columns;
    let range = start + block.cols.start..start + block.cols.end;
    (
        &source[range.start * T::BYTES..range.end * T::BYTES],
        &mut codes[range],
    )
}

fn first_non_finite<T: Element>(source: &[u8], block: &Block) -> NonFiniteAt {
    for row in block.rows.clone() {
        for column in block.cols.clone() {
            let at = (row * block.columns + column) * T::BYTES;
            let value = T::read(&source[at..at + T::BYTES]);
            if !value.is_finite() {
                return NonFiniteAt { row, column, value };
            }
        }
    }
    unreachable!("a block whose amax is not finite holds a value that is not finite")
}

/// The smallest normal f32, the lower bound of every scale.
const MIN_SCALE: f32 = f32::MIN_POSITIVE;

/// The smallest power of two `s ≥ 2⁻¹²⁶` with `amax / s ≤ 448`; 1 for `amax = 0`.
pub fn power_of_two_scale(amax: f32) -> f32 {
    const EXPONENT_OF_MAX: u32 = 8;
    const MANTISSA_OF_MAX: u32 = 0b11 << 21; // 448 = 1.75 · 2⁸
    if amax == 0.0 {
        return 1.0;
    }
    let bits = amax.to_bits();
    let exponent = bits >> 23;
    let round_up = u32::from(bits & 0x7f_ffff > MANTISSA_OF_MAX);
    let scale_exponent = (exponent + round_up).saturating_sub(EXPONENT_OF_MAX).max(1);
    f32::from_bits(scale_exponent << 23)
}

/// `f32(f64(amax) / 448)`, at least 2⁻¹²⁶; 1 for `amax = 0`.
pub fn exact_scale(amax: f32) -> f32 {
    if amax == 0.0 {
        return 1.0;
    }
    ((f64::from(amax) / f64::from(E4M3_MAX)) as f32).max(MIN_SCALE)
}

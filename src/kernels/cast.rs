//! Element types changed, and FP8 codes multiplied by their scales: each result is rounded once, to
//! nearest, ties to even.
//!
//! | what | becomes |
//! |---|---|
//! | a number beyond the largest of the target (after rounding) | infinity of its sign |
//! | a number below the smallest | rounded to a subnormal or to zero of its sign |
//! | NaN | NaN of its sign; for products, the NaN without sign |
//!
//! The loops are plain Rust for compilers to vectorize, compiled once for each [`CpuPath`]. What
//! they do to a number are integer operations and single f32 multiplications and additions, which
//! are the same on every processor.

use half::{bf16, f16};

use crate::kernels::CpuPath;

/// An element type that values are read from.
pub trait Source {
    /// Bytes of one element.
    const BYTES: usize;

    /// The bits of the f32 that one little-endian element is, or one that rounds to a narrower type
    /// as the element does.
    fn f32_bits(bytes: &[u8]) -> u32;
}

/// An element type that values are written as.
pub trait Target {
    /// Bytes of one element.
    const BYTES: usize;

    /// Writes the element nearest to the f32 with these bits, in little-endian order.
    fn write(bits: u32, bytes: &mut [u8]);
}

/// An 8-bit type that is multiplied by scales.
pub trait Code {
    /// The value of a code.
    fn value(code: u8) -> f32;
}

/// f64, on the way to f32.
#[derive(Debug)]
pub enum F64ToF32 {}

/// f64, on the way to narrower types than f32.
#[derive(Debug)]
pub enum F64ToOdd {}

/// `float8_e4m3fn`: 1 sign, 4 exponent (bias 7) and 3 mantissa bits, no infinities.
#[derive(Debug)]
pub enum E4m3 {}

/// `float8_e5m2`: 1 sign, 5 exponent (bias 15) and 2 mantissa bits, as f16 cut in half.
#[derive(Debug)]
pub enum E5m2 {}

/// Writes every element of `source` as a `T`.
///
/// # Panics
/// If `target` does not have as many elements, or this processor cannot run `path`.
pub fn convert<S: Source, T: Target>(source: &[u8], target: &mut [u8], path: CpuPath) {
    assert!(CpuPath::available().contains(&path));
    assert!(source.len().is_multiple_of(S::BYTES) && target.len().is_multiple_of(T::BYTES));
    assert_eq!(source.len() / S::BYTES, target.len() / T::BYTES);
    match path {
        CpuPath::Scalar => convert_all::<S, T>(source, target),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2 and F16C, as `available` found.
        CpuPath::Avx2 => unsafe { convert_avx2::<S, T>(source, target) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512 F and BW, as `available` found.
        CpuPath::Avx512 => unsafe { convert_avx512::<S, T>(source, target) },
        #[cfg(not(target_arch = "x86_64"))]
        CpuPath::Avx2 | CpuPath::Avx512 => unreachable!("not available"),
    }
}

/// Writes the products of `codes`, elements of one row, and their scales: one for every
/// `block_columns` codes, the last of which may be cut off.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn dequantize_row<C: Code, T: Target>(
    codes: &[u8],
    scales: &[f32],
    block_columns: usize,
    target: &mut [u8],
    path: CpuPath,
) {
    assert!(CpuPath::available().contains(&path));
    assert_eq!(target.len(), codes.len() * T::BYTES);
    assert_eq!(scales.len(), codes.len().div_ceil(block_columns));
    match path {
        CpuPath::Scalar => dequantize_blocks::<C, T>(codes, scales, block_columns, target),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2 and F16C, as `available` found.
        CpuPath::Avx2 => unsafe { dequantize_avx2::<C, T>(codes, scales, block_columns, target) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512 F and BW, as `available` found.
        CpuPath::Avx512 => unsafe {
            dequantize_avx512::<C, T>(codes, scales, block_columns, target)
        },
        #[cfg(not(target_arch = "x86_64"))]
        CpuPath::Avx2 | CpuPath::Avx512 => unreachable!("not available"),
    }
}

#[inline(always)]
fn convert_all<S: Source, T: Target>(source: &[u8], target: &mut [u8]) {
    let elements = source.chunks_exact(S::BYTES);
    for (element, target) in elements.zip(target.chunks_exact_mut(T::BYTES)) {
        T::write(S::f32_bits(element), target);
    }
}

#[inline(always)]
fn dequantize_blocks<C: Code, T: Target>(
    codes: &[u8],
    scales: &[f32],
    block_columns: usize,
    target: &mut [u8],
) {
    let targets = target.chunks_mut(block_columns * T::BYTES);
    for ((codes, &scale), target) in codes.chunks(block_columns).zip(scales).zip(targets) {
        for (&code, target) in codes.iter().zip(target.chunks_exact_mut(T::BYTES)) {
            let product = C::value(code) * scale;
            // Which of two NaNs a product takes after is not the same everywhere.
            let bits = match product.is_nan() {
                true => QUIET_NAN,
                false => product.to_bits(),
            };
            T::write(bits, target);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn convert_avx2<S: Source, T: Target>(source: &[u8], target: &mut [u8]) {
    convert_all::<S, T>(source, target);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn convert_avx512<S: Source, T: Target>(source: &[u8], target: &mut [u8]) {
    convert_all::<S, T>(source, target);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn dequantize_avx2<C: Code, T: Target>(c: &[u8], scales: &[f32], columns: usize, to: &mut [u8]) {
    dequantize_blocks::<C, T>(c, scales, columns, to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn dequantize_avx512<C: Code, T: Target>(c: &[u8], scales: &[f32], columns: usize, to: &mut [u8]) {
    dequantize_blocks::<C, T>(c, scales, columns, to);
}

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0xff << 23;
const QUIET_NAN: u32 = INFINITY | QUIET;
const QUIET: u32 = 1 << 22;

/// 2 to the power of `exponent`, which must be that of a normal f32.
const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

impl Source for bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn f32_bits(bytes: &[u8]) -> u32 {
        u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16
    }
}

impl Source for f16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn f32_bits(bytes: &[u8]) -> u32 {
        const F16_INFINITY: u32 = 0x7c00;
        let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        let magnitude = bits & 0x7fff;
        // The exponent biases differ by 112, and the product is exact, also for subnormals.
        let finite = (f32::from_bits(magnitude << 13) * power_of_two(112)).to_bits();
        let value = match magnitude < F16_INFINITY {
            true => finite,
            false => magnitude << 13 | INFINITY,
        };
        value | (bits & 0x8000) << 16
    }
}

impl Source for f32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn f32_bits(bytes: &[u8]) -> u32 {
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

/// The bits of a little-endian f64.
#[inline(always)]
fn f64_bits(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[i]);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The quiet NaN of f32 that keeps the sign and what there is room for of an f64 NaN.
#[inline(always)]
fn nan_of(bits: u64) -> u32 {
    (bits >> 32) as u32 & SIGN | QUIET_NAN | (bits >> 29) as u32 & (QUIET - 1)
}

impl Source for F64ToF32 {
    const BYTES: usize = 8;

    #[inline(always)]
    fn f32_bits(bytes: &[u8]) -> u32 {
        let bits = f64_bits(bytes);
        let value = f64::from_bits(bits);
        match value.is_nan() {
            true => nan_of(bits),
            false => (value as f32).to_bits(),
        }
    }
}

impl Source for F64ToOdd {
    const BYTES: usize = 8;

    /// Rounds to odd: what is not exact becomes the neighbour whose last bit is 1, which lies on
    /// the same side of everything that a type with two bits less can round at.
    #[inline(always)]
    fn f32_bits(bytes: &[u8]) -> u32 {
        let bits = f64_bits(bytes);
        let magnitude = f64::from_bits(bits & (u64::MAX >> 1));
        if magnitude.is_nan() {
            return nan_of(bits);
        }
        let nearest = magnitude as f32;
        let below = nearest.to_bits() - u32::from(f64::from(nearest) > magnitude);
        let inexact = u32::from(f64::from(nearest) != magnitude);
        (bits >> 32) as u32 & SIGN | below | inexact
    }
}

impl Target for bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn write(bits: u32, bytes: &mut [u8]) {
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let value = match bits & !SIGN > INFINITY {
            true => (bits | QUIET) >> 16,
            false => rounded,
        };
        bytes.copy_from_slice(&(value as u16).to_le_bytes());
    }
}

impl Target for f16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn write(bits: u32, bytes: &mut [u8]) {
        const DROPPED: u32 = 23 - 10;
        const BIAS_CHANGE: u32 = (127 - 15) << 10;
        const MIN_NORMAL: u32 = (127 - 14) << 23;
        /// 65520, in the middle between the largest f16 and what would come next.
        const OVERFLOW: u32 = 0x477f_f000;
        // Its unit in the last place is 2⁻²⁴, so adding it rounds to multiples of 2⁻²⁴.
        const ROUND_SUBNORMAL: f32 = 0.5;

        let magnitude = bits & !SIGN;
        let half_even = (1 << (DROPPED - 1)) - 1 + (magnitude >> DROPPED & 1);
        let normal = (magnitude.wrapping_add(half_even) >> DROPPED).wrapping_sub(BIAS_CHANGE);
        let subnormal = (f32::from_bits(magnitude) + ROUND_SUBNORMAL)
            .to_bits()
            .wrapping_sub(ROUND_SUBNORMAL.to_bits());
        let finite = if magnitude < MIN_NORMAL {
            subnormal
        } else {
            normal
        };
        let value = if magnitude > INFINITY {
            0x7e00 | magnitude >> DROPPED & 0x3ff
        } else if magnitude >= OVERFLOW {
            0x7c00
        } else {
            finite
        };
        let value = (bits >> 16) as u16 & 0x8000 | value as u16;
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

impl Target for f32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn write(bits: u32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&bits.to_le_bytes());
    }
}

/// The value of a code whose exponent has `bias`, with `mantissa_bits`; it is no number from the
/// magnitude `first_special` on.
#[inline(always)]
fn value_of(code: u8, mantissa_bits: u32, bias: i32, first_special: u8, special: f32) -> f32 {
    let magnitude = code & 0x7f;
    let shifted = f32::from_bits(u32::from(magnitude) << (23 - mantissa_bits));
    // Exact, also for subnormals.
    let value = match magnitude < first_special {
        true => shifted * power_of_two(127 - bias),
        false => special,
    };
    f32::from_bits(value.to_bits() | u32::from(code & 0x80) << 24)
}

impl Code for E4m3 {
    #[inline(always)]
    fn value(code: u8) -> f32 {
        value_of(code, 3, 7, 0x7f, f32::from_bits(QUIET_NAN))
    }
}

impl Code for E5m2 {
    #[inline(always)]
    fn value(code: u8) -> f32 {
        let special = match code & 3 {
            0 => f32::INFINITY,
            _ => f32::from_bits(QUIET_NAN),
        };
        value_of(code, 2, 15, 0x7c, special)
    }
}

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

use std::marker::PhantomData;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use crate::kernels::avx2::{self, STEP};
use crate::kernels::lanes::Precision;
use crate::kernels::{CpuPath, Loop, lanes};

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
    /// Which type it is, for loops that are written for one.
    const PRECISION: Precision;

    /// Writes the element nearest to the f32 with these bits, in little-endian order.
    fn write(bits: u32, bytes: &mut [u8]);
}

/// An 8-bit type that is multiplied by scales.
pub trait Code {
    /// Whether this is [`E4m3`], for which there are loops of its own.
    const IS_E4M3: bool = false;

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

/// Integers of 8 bits in two's complement.
#[derive(Debug)]
pub enum Int8 {}

/// Writes every element of `source` as a `T`.
///
/// # Panics
/// If `target` does not have as many elements, or this processor cannot run `path`.
pub fn convert<S: Source, T: Target>(source: &[u8], target: &mut [u8], path: CpuPath) {
    assert!(source.len().is_multiple_of(S::BYTES) && target.len().is_multiple_of(T::BYTES));
    assert_eq!(source.len() / S::BYTES, target.len() / T::BYTES);
    path.run(Conversion::<S, T> {
        source,
        target,
        types: PhantomData,
    });
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
    assert_eq!(target.len(), codes.len() * T::BYTES);
    assert_eq!(scales.len(), codes.len().div_ceil(block_columns));
    let work = Dequantization::<C, T> {
        codes,
        scales,
        block_columns,
        target,
        types: PhantomData,
    };
    match path {
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 | CpuPath::Avx512 if C::IS_E4M3 => CpuPath::Avx2.run(Steps(work)),
        _ => path.run(work),
    }
}

struct Conversion<'a, S, T> {
    source: &'a [u8],
    target: &'a mut [u8],
    types: PhantomData<(S, T)>,
}

impl<S: Source, T: Target> Loop for Conversion<'_, S, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let elements = self.source.chunks_exact(S::BYTES);
        for (element, target) in elements.zip(self.target.chunks_exact_mut(T::BYTES)) {
            T::write(S::f32_bits(element), target);
        }
    }
}

struct Dequantization<'a, C, T> {
    codes: &'a [u8],
    scales: &'a [f32],
    block_columns: usize,
    target: &'a mut [u8],
    types: PhantomData<(C, T)>,
}

impl<C: Code, T: Target> Loop for Dequantization<'_, C, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let targets = self.target.chunks_mut(self.block_columns * T::BYTES);
        let blocks = self.codes.chunks(self.block_columns).zip(self.scales);
        for ((codes, &scale), target) in blocks.zip(targets) {
            multiply::<C, T>(codes, scale, target);
        }
    }
}

/// Writes the products of `codes` and `scale`.
#[inline(always)]
fn multiply<C: Code, T: Target>(codes: &[u8], scale: f32, target: &mut [u8]) {
    for (&code, target) in codes.iter().zip(target.chunks_exact_mut(T::BYTES)) {
        T::write(product_bits(C::value(code), scale), target);
    }
}

/// The same of codes of E4M3 by AVX2, 32 at a time.
#[cfg(target_arch = "x86_64")]
struct Steps<'a, C, T>(Dequantization<'a, C, T>);

#[cfg(target_arch = "x86_64")]
impl<C: Code, T: Target> Loop for Steps<'_, C, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Steps(work) = self;
        let targets = work.target.chunks_mut(work.block_columns * T::BYTES);
        let blocks = work.codes.chunks(work.block_columns).zip(work.scales);
        for ((codes, &scale), target) in blocks.zip(targets) {
            let Some(factor) = avx2::e4m3_factor(scale) else {
                multiply::<C, T>(codes, scale, target);
                continue;
            };
            let steps = codes.chunks(STEP).zip(target.chunks_mut(STEP * T::BYTES));
            for (codes, target) in steps {
                // SAFETY: the processor has AVX2 and F16C, as the path says.
                let is_done = codes.len() == STEP
                    && unsafe { write_products(codes, factor, T::PRECISION, target) };
                if !is_done {
                    multiply::<C, T>(codes, scale, target);
                }
            }
        }
    }
}

/// Writes 32 products, if none is a NaN, and whether it did.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn write_products(codes: &[u8], factor: f32, to: Precision, target: &mut [u8]) -> bool {
    match avx2::e4m3_products(codes, factor) {
        Some(products) => avx2::store(to, products, target),
        None => return false,
    }
    true
}

/// The bits of `value` times `scale`, the same on every processor.
#[inline(always)]
pub(super) fn product_bits(value: f32, scale: f32) -> u32 {
    let product = value * scale;
    // Which of two NaNs a product takes after is not the same everywhere.
    if product.is_nan() {
        QUIET_NAN
    } else {
        product.to_bits()
    }
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
        lanes::f16_value(u16::from_le_bytes([bytes[0], bytes[1]])).to_bits()
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
        if value.is_nan() {
            nan_of(bits)
        } else {
            (value as f32).to_bits()
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
    const PRECISION: Precision = Precision::Bf16;

    #[inline(always)]
    fn write(bits: u32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&lanes::bf16_bits(f32::from_bits(bits)).to_le_bytes());
    }
}

impl Target for f16 {
    const BYTES: usize = 2;
    const PRECISION: Precision = Precision::F16;

    #[inline(always)]
    fn write(bits: u32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&lanes::f16_bits(f32::from_bits(bits)).to_le_bytes());
    }
}

impl Target for f32 {
    const BYTES: usize = 4;
    const PRECISION: Precision = Precision::F32;

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
    let value = if magnitude < first_special {
        shifted * power_of_two(127 - bias)
    } else {
        special
    };
    f32::from_bits(value.to_bits() | u32::from(code & 0x80) << 24)
}

impl Code for E4m3 {
    const IS_E4M3: bool = true;

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

impl Code for Int8 {
    #[inline(always)]
    fn value(code: u8) -> f32 {
        f32::from(code as i8)
    }
}

//! The loops, compiled for each processor.

use std::marker::PhantomData;

use crate::kernels::fp8::Element;
use crate::kernels::{CpuPath, Loop};

/// Elements that are encoded at once; of groups of 32, fewer.
const LONG: usize = 64;
const SHORT: usize = 32;

/// A kind of codes.
pub trait Integer {
    const BITS: usize;
    const MIN: f32;
    const MAX: f32;
    const IS_SYMMETRIC: bool;
}

/// Symmetric codes of 8 bits, a byte each.
#[derive(Debug)]
pub enum Int8 {}

/// Symmetric codes of 4 bits, plus 8: two in a byte, the first in its lower half.
#[derive(Debug)]
pub enum Int4 {}

/// The same with a zero point.
#[derive(Debug)]
pub enum Int4Asymmetric {}

impl Integer for Int8 {
    const BITS: usize = 8;
    const MIN: f32 = -128.0;
    const MAX: f32 = 127.0;
    const IS_SYMMETRIC: bool = true;
}

impl Integer for Int4 {
    const BITS: usize = 4;
    const MIN: f32 = -8.0;
    const MAX: f32 = 7.0;
    const IS_SYMMETRIC: bool = true;
}

impl Integer for Int4Asymmetric {
    const BITS: usize = 4;
    const MIN: f32 = -8.0;
    const MAX: f32 = 7.0;
    const IS_SYMMETRIC: bool = false;
}

/// What is done with groups, on some kind of processor.
pub(super) trait Groups {
    /// The largest magnitude, as bits.
    fn amax_bits<T: Element>(source: &[u8]) -> u32;

    /// [`Element::order`] of the smallest and of the largest of elements and zero; that of a NaN if there is one.
    fn orders<T: Element>(source: &[u8]) -> [i32; 2];

    fn encode<T: Element, C: Integer>(source: &[u8], codes: &mut [u8], scale: f32, zero: f32);
}

/// As compilers make it.
pub(super) enum Plain {}

impl Groups for Plain {
    #[inline(always)]
    fn amax_bits<T: Element>(source: &[u8]) -> u32 {
        let magnitudes = source.chunks_exact(T::BYTES).map(T::magnitude_bits);
        magnitudes.fold(0, u32::max)
    }

    #[inline(always)]
    fn orders<T: Element>(source: &[u8]) -> [i32; 2] {
        let orders = || source.chunks_exact(T::BYTES).map(T::order);
        [orders().fold(0, i32::min), orders().fold(0, i32::max)]
    }

    #[inline(always)]
    fn encode<T: Element, C: Integer>(source: &[u8], codes: &mut [u8], scale: f32, zero: f32) {
        let (source, codes) = encode_chunks::<T, C, LONG>(source, codes, scale, zero);
        let (source, codes) = encode_chunks::<T, C, SHORT>(source, codes, scale, zero);
        if !source.is_empty() {
            let mut all = [0; SHORT * 4];
            let mut out = [0; SHORT];
            all[..source.len()].copy_from_slice(source);
            let (all, out) = (&all[..SHORT * T::BYTES], &mut out[..SHORT * C::BITS / 8]);
            encode_chunks::<T, C, SHORT>(all, out, scale, zero);
            codes.copy_from_slice(&out[..codes.len()]);
        }
    }
}

pub(super) struct Rows<'a, T, C, G> {
    pub(super) source: &'a [u8],
    pub(super) group: usize,
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [f32],
    pub(super) zero_points: &'a mut [i8],
    pub(super) types: PhantomData<(T, C, G)>,
}

impl<'a, T, C, G> Rows<'a, T, C, G> {
    /// The same on another kind of processor.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn by<H>(self) -> Rows<'a, T, C, H> {
        Rows {
            source: self.source,
            group: self.group,
            codes: self.codes,
            scales: self.scales,
            zero_points: self.zero_points,
            types: PhantomData,
        }
    }
}

/// Groups whose scales are found before any of them is encoded: one after the other, each would wait
/// for the scale of its own.
const BATCH: usize = 64;

impl<T: Element, C: Integer, G: Groups> Loop for Rows<'_, T, C, G> {
    /// Whether all elements, and how far they are from each other, are finite.
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let group_bytes = self.group * T::BYTES;
        let group_codes = self.group * C::BITS / 8;
        let sources = self.source.chunks(BATCH * group_bytes);
        let codes = self.codes.chunks_mut(BATCH * group_codes);
        let scales = self.scales.chunks_mut(BATCH);
        let scales = scales.zip(self.zero_points.chunks_mut(BATCH));
        for ((source, codes), (scales, zero_points)) in sources.zip(codes).zip(scales) {
            let groups = || source.chunks_exact(group_bytes);
            let mut mins = [0.0f32; BATCH];
            for ((source, scale), min) in groups().zip(&mut *scales).zip(&mut mins) {
                if C::IS_SYMMETRIC {
                    *scale = T::from_magnitude_bits(G::amax_bits::<T>(source));
                } else {
                    let [smallest, largest] = G::orders::<T>(source).map(T::from_order);
                    (*min, *scale) = (smallest, largest - smallest);
                }
            }
            let mut are_finite = true;
            for scale in &mut *scales {
                are_finite &= scale.is_finite();
                let levels = C::MAX - C::MIN;
                let steps = if C::IS_SYMMETRIC {
                    levels / 2.0
                } else {
                    levels
                };
                *scale = T::round(*scale / steps);
            }
            if !are_finite {
                return false;
            }
            for ((scale, zero_point), min) in scales.iter_mut().zip(&mut *zero_points).zip(mins) {
                let is_zero = *scale == 0.0;
                *scale = if is_zero { T::EPSILON } else { *scale };
                let zero = rounded::<C>(C::MIN - min / *scale);
                *zero_point = if C::IS_SYMMETRIC || is_zero {
                    0
                } else {
                    zero as i8
                };
            }
            let parts = groups().zip(codes.chunks_exact_mut(group_codes));
            for ((source, codes), (scale, zero)) in parts.zip(scales.iter().zip(&*zero_points)) {
                G::encode::<T, C>(source, codes, *scale, f32::from(*zero));
            }
        }
        true
    }
}

/// `x` in the range of codes, rounded.
#[inline(always)]
fn rounded<C: Integer>(x: f32) -> f32 {
    in_range::<C>(x) + ROUND - ROUND
}

/// Adding it rounds numbers of a small magnitude to integers, ties to even.
pub(super) const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³

#[inline(always)]
fn in_range<C: Integer>(x: f32) -> f32 {
    let x = if x > C::MAX { C::MAX } else { x };
    if x < C::MIN { C::MIN } else { x }
}

/// Encodes elements, `N` at a time, and returns what is left.
#[inline(always)]
fn encode_chunks<'a, T: Element, C: Integer, const N: usize>(
    source: &'a [u8],
    codes: &'a mut [u8],
    scale: f32,
    zero: f32,
) -> (&'a [u8], &'a mut [u8]) {
    let mut sources = source.chunks_exact(N * T::BYTES);
    let mut targets = codes.chunks_exact_mut(N * C::BITS / 8);
    for (source, target) in (&mut sources).zip(&mut targets) {
        let mut codes = [0u8; N];
        for (code, element) in codes.iter_mut().zip(source.chunks_exact(T::BYTES)) {
            let x = T::read_finite(element) / scale;
            let x = if C::IS_SYMMETRIC { x } else { x + zero };
            // Its lowest bits are those of the integer.
            *code = (in_range::<C>(x) + ROUND).to_bits() as u8;
        }
        if C::BITS == 8 {
            target.copy_from_slice(&codes);
            continue;
        }
        for (target, pair) in target.iter_mut().zip(codes.as_chunks::<2>().0) {
            // Plus 8 is the highest bit of each half inverted.
            let pair = u16::from_le_bytes(*pair) & 0x0f0f;
            *target = (pair | pair >> 4) as u8 ^ 0x88;
        }
    }
    (sources.remainder(), targets.into_remainder())
}

/// Writes the integers −8 to 7 that `packed`, codes of 4 bits plus 8, stand for, less `zero_point`.
///
/// # Panics
/// If `values` does not have two elements for each byte, or this processor cannot run `path`.
pub fn unpack(packed: &[u8], zero_point: i8, values: &mut [u8], path: CpuPath) {
    assert_eq!(values.len(), packed.len() * 2);
    path.run(Unpacking {
        packed,
        zero_point,
        values,
    });
}

struct Unpacking<'a> {
    packed: &'a [u8],
    zero_point: i8,
    values: &'a mut [u8],
}

impl Loop for Unpacking<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let offset = 8i8.wrapping_add(self.zero_point) as u8;
        let pairs = self.values.as_chunks_mut::<2>().0;
        for (pair, packed) in pairs.iter_mut().zip(self.packed) {
            *pair = [
                (packed & 0xf).wrapping_sub(offset),
                (packed >> 4).wrapping_sub(offset),
            ];
        }
    }
}

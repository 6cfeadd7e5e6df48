//! The loops, compiled for each processor.

use std::marker::PhantomData;

use crate::kernels::Loop;
use crate::kernels::fp8::Element;
use crate::kernels::microscaling::formats::Format;

pub(super) struct Rows<'a, T, F> {
    pub(super) source: &'a [u8],
    pub(super) global: f32,
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [u8],
    pub(super) types: PhantomData<(T, F)>,
}

/// Groups whose scales are found before any of them is encoded: one after the other, each would wait
/// for the scale of its own.
const BATCH: usize = 64;
/// The most columns of a group.
const GROUP: usize = 32;

/// Whether `amax` is, told by a comparison that NaN fails too.
#[inline(always)]
pub(super) fn is_finite(amax: f32) -> bool {
    amax <= f32::MAX
}

impl<T: Element, F: Format> Loop for Rows<'_, T, F> {
    /// Whether all elements are finite.
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let group_bytes = F::GROUP * T::BYTES;
        let group_codes = F::GROUP * F::BITS / 8;
        let sources = self.source.chunks(BATCH * group_bytes);
        let codes = self.codes.chunks_mut(BATCH * group_codes);
        let batches = sources.zip(codes).zip(self.scales.chunks_mut(BATCH));
        let mut are_finite = true;
        for ((source, codes), scales) in batches {
            let mut amax = [0.0f32; BATCH];
            let mut factors = [0.0f32; BATCH];
            for (amax, group) in amax.iter_mut().zip(source.chunks_exact(group_bytes)) {
                *amax = T::from_magnitude_bits(amax_bits::<T>(group));
            }
            for ((amax, factor), scale) in amax.iter().zip(&mut factors).zip(scales) {
                are_finite &= is_finite(*amax);
                (*scale, *factor) = F::scale(*amax, self.global);
            }
            if !are_finite {
                return false;
            }
            let groups = source
                .chunks_exact(group_bytes)
                .zip(codes.chunks_exact_mut(group_codes));
            for ((source, codes), factor) in groups.zip(factors) {
                encode_group::<T, F>(source, codes, factor);
            }
        }
        true
    }
}

/// The largest magnitude of a group, as bits.
#[inline(always)]
fn amax_bits<T: Element>(source: &[u8]) -> u32 {
    let magnitudes = source.chunks_exact(T::BYTES).map(T::magnitude_bits);
    magnitudes.fold(0, u32::max)
}

#[inline(always)]
fn encode_group<T: Element, F: Format>(source: &[u8], target: &mut [u8], factor: f32) {
    let mut codes = [0u8; GROUP];
    let codes = &mut codes[..F::GROUP];
    for (code, element) in codes.iter_mut().zip(source.chunks_exact(T::BYTES)) {
        let x = T::read_finite(element);
        *code = F::code(if F::DIVIDES { x / factor } else { x * factor });
    }
    if F::BITS == 8 {
        target.copy_from_slice(codes);
        return;
    }
    for (target, pair) in target.iter_mut().zip(codes.as_chunks::<2>().0) {
        let pair = u16::from_le_bytes(*pair);
        *target = (pair | pair >> 4) as u8;
    }
}

/// Finds the largest magnitude of all elements.
pub(super) struct Amax<'a, T> {
    pub(super) source: &'a [u8],
    pub(super) element: PhantomData<T>,
}

impl<T: Element> Loop for Amax<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        T::from_magnitude_bits(amax_bits::<T>(self.source))
    }
}

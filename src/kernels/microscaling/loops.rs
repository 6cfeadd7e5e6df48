//! The loops, compiled for each processor.

use std::marker::PhantomData;

use crate::kernels::Loop;
use crate::kernels::fp8::Element;
use crate::kernels::microscaling::formats::Format;
use crate::kernels::microscaling::groups::{Groups, Plain};

pub(super) struct Rows<'a, T, F, G> {
    pub(super) source: &'a [u8],
    pub(super) global: f32,
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [u8],
    pub(super) types: PhantomData<(T, F, G)>,
}

/// Groups whose scales are found before any of them is encoded: one after the other, each would wait
/// for the scale of its own.
const BATCH: usize = 64;

/// Whether `amax` is, told by a comparison that NaN fails too.
#[inline(always)]
pub(super) fn is_finite(amax: f32) -> bool {
    amax <= f32::MAX
}

impl<T: Element, F: Format, G: Groups> Loop for Rows<'_, T, F, G> {
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
                *amax = T::from_magnitude_bits(G::amax_bits::<T>(group));
            }
            for ((amax, factor), scale) in amax.iter().zip(&mut factors).zip(scales) {
                are_finite &= is_finite(*amax);
                (*scale, *factor) = F::scale(*amax, self.global);
            }
            if !are_finite {
                return false;
            }
            let count = source.len() / group_bytes;
            G::encode::<T, F>(source, codes, &factors[..count]);
        }
        true
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
        T::from_magnitude_bits(Plain::amax_bits::<T>(self.source))
    }
}

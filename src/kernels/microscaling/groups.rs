//! What is done with groups, in plain Rust.

use super::formats::{Codes, Format};
use crate::kernels::fp8::Element;

/// The most columns of a group.
const MAX_GROUP: usize = 32;

/// What is done with groups, on some kind of processor.
pub(super) trait Groups {
    /// The largest magnitude of a group, as bits.
    fn amax_bits<T: Element>(group: &[u8]) -> u32;

    /// Encodes the groups of `source`, each of which has one of `factors`.
    fn encode<T: Element, F: Format>(source: &[u8], target: &mut [u8], factors: &[f32]);
}

/// As compilers make it.
pub(super) enum Plain {}

impl Groups for Plain {
    #[inline(always)]
    fn amax_bits<T: Element>(group: &[u8]) -> u32 {
        let magnitudes = group.chunks_exact(T::BYTES).map(T::magnitude_bits);
        magnitudes.fold(0, u32::max)
    }

    #[inline(always)]
    fn encode<T: Element, F: Format>(source: &[u8], target: &mut [u8], factors: &[f32]) {
        let sources = source.chunks_exact(F::GROUP * T::BYTES);
        let targets = target.chunks_exact_mut(F::GROUP * F::BITS / 8);
        for ((source, target), factor) in sources.zip(targets).zip(factors) {
            encode_group::<T, F>(source, target, *factor);
        }
    }
}

#[inline(always)]
fn encode_group<T: Element, F: Format>(source: &[u8], target: &mut [u8], factor: f32) {
    let mut codes = [0u8; MAX_GROUP];
    let codes = &mut codes[..F::GROUP];
    for (code, element) in codes.iter_mut().zip(source.chunks_exact(T::BYTES)) {
        let x = T::read_finite(element);
        *code = F::CODES.of(if F::DIVIDES { x / factor } else { x * factor });
    }
    if F::CODES == Codes::E4m3 {
        target.copy_from_slice(codes);
        return;
    }
    for (target, pair) in target.iter_mut().zip(codes.as_chunks::<2>().0) {
        let pair = u16::from_le_bytes(*pair);
        *target = (pair | pair >> 4) as u8;
    }
}

//! Groups by AVX2, 32 elements at a time.

use std::arch::x86_64::*;

use super::loops::{Groups, Integer, Plain, ROUND};
use crate::kernels::avx2::{self, STEP};
use crate::kernels::fp8::Element;
use crate::kernels::lanes::Precision;

/// Only loops that run on [`CpuPath::Avx2`](crate::kernels::CpuPath) may use it.
pub(super) enum Avx2 {}

/// Whether `source` can be searched by vectors of 16 elements.
#[inline(always)]
fn is_searched<T: Element>(source: &[u8]) -> bool {
    T::PRECISION != Precision::F32 && source.len().is_multiple_of(32)
}

impl Groups for Avx2 {
    #[inline(always)]
    fn amax_bits<T: Element>(source: &[u8]) -> u32 {
        if is_searched::<T>(source) {
            // SAFETY: the processor has AVX2 and F16C where this type may be used.
            unsafe { avx2::amax_bits_of_16(source) }
        } else {
            Plain::amax_bits::<T>(source)
        }
    }

    #[inline(always)]
    fn orders<T: Element>(source: &[u8]) -> [i32; 2] {
        if is_searched::<T>(source) {
            // SAFETY: as above.
            unsafe { avx2::orders_of_16(source) }
        } else {
            Plain::orders::<T>(source)
        }
    }

    #[inline(always)]
    fn encode<T: Element, C: Integer>(source: &[u8], codes: &mut [u8], scale: f32, zero: f32) {
        let whole = codes.len() * 8 / C::BITS / STEP;
        let (source, last_source) = source.split_at(whole * STEP * T::BYTES);
        let (codes, last_codes) = codes.split_at_mut(whole * STEP * C::BITS / 8);
        let steps = source.chunks_exact(STEP * T::BYTES);
        for (source, codes) in steps.zip(codes.chunks_exact_mut(STEP * C::BITS / 8)) {
            // SAFETY: as above.
            unsafe { encode_step::<T, C>(source, codes, scale, zero) };
        }
        Plain::encode::<T, C>(last_source, last_codes, scale, zero);
    }
}

/// Encodes 32 elements.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn encode_step<T: Element, C: Integer>(source: &[u8], target: &mut [u8], scale: f32, zero: f32) {
    let [a, b, c, d] = avx2::load(T::PRECISION, source);
    let (scale, zero) = (_mm256_set1_ps(scale), _mm256_set1_ps(zero));
    let codes = [
        code::<C>(a, scale, zero),
        code::<C>(b, scale, zero),
        code::<C>(c, scale, zero),
        code::<C>(d, scale, zero),
    ];
    if C::BITS == 8 {
        avx2::store_bytes(codes, target);
    } else {
        avx2::store_nibbles(codes, target);
    }
}

/// The codes of 8 elements, those of four bits plus 8.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn code<C: Integer>(x: __m256, scale: __m256, zero: __m256) -> __m256i {
    let quotient = _mm256_div_ps(x, scale);
    let moved = if C::IS_SYMMETRIC {
        quotient
    } else {
        _mm256_add_ps(quotient, zero)
    };
    let most = _mm256_min_ps(moved, _mm256_set1_ps(C::MAX));
    let bounded = _mm256_max_ps(most, _mm256_set1_ps(C::MIN));
    let round = _mm256_set1_ps(ROUND);
    let rounded = _mm256_castps_si256(_mm256_add_ps(bounded, round));
    if C::BITS == 8 {
        return _mm256_and_si256(rounded, _mm256_set1_epi32(0xff));
    }
    _mm256_sub_epi32(rounded, _mm256_set1_epi32(ROUND.to_bits() as i32 - 8))
}

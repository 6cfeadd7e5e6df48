//! Groups by AVX2, 32 elements at a time.

use std::arch::x86_64::*;

use super::formats::{Codes, Format, Sign};
use super::groups::{Groups, Plain};
use crate::kernels::avx2::{self, STEP};
use crate::kernels::fp8::Element;
use crate::kernels::lanes::Precision;

/// Only loops that run on [`CpuPath::Avx2`](crate::kernels::CpuPath) or AVX-512 may use it.
pub(super) enum Avx2 {}

impl Groups for Avx2 {
    #[inline(always)]
    fn amax_bits<T: Element>(group: &[u8]) -> u32 {
        if T::PRECISION == Precision::F32 {
            return Plain::amax_bits::<T>(group);
        }
        // SAFETY: the processor has AVX2 and F16C where this type may be used.
        unsafe { avx2::amax_bits_of_16(group) }
    }

    #[inline(always)]
    fn encode<T: Element, F: Format>(source: &[u8], target: &mut [u8], factors: &[f32]) {
        let in_step = STEP / F::GROUP;
        let (whole, last) = factors.split_at(factors.len() / in_step * in_step);
        let (source, last_source) = source.split_at(whole.len() * F::GROUP * T::BYTES);
        let (target, last_target) = target.split_at_mut(whole.len() * F::GROUP * F::BITS / 8);
        let sources = source.chunks_exact(STEP * T::BYTES);
        let targets = target.chunks_exact_mut(STEP * F::BITS / 8);
        for ((source, target), factors) in sources.zip(targets).zip(whole.chunks_exact(in_step)) {
            let factors = [factors[0], factors[in_step - 1]];
            // SAFETY: as above.
            unsafe { encode_step::<T, F>(source, target, factors) };
        }
        Plain::encode::<T, F>(last_source, last_target, last);
    }
}

/// Encodes 32 elements, of which each half has a factor.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn encode_step<T: Element, F: Format>(source: &[u8], target: &mut [u8], factors: [f32; 2]) {
    let [a, b, c, d] = avx2::load(T::PRECISION, source);
    let (first, second) = (_mm256_set1_ps(factors[0]), _mm256_set1_ps(factors[1]));
    let codes = [
        code::<F>(a, first),
        code::<F>(b, first),
        code::<F>(c, second),
        code::<F>(d, second),
    ];
    match F::CODES {
        Codes::E4m3 => avx2::store_bytes(codes, target),
        Codes::E2m1(..) => avx2::store_nibbles(codes, target),
    }
}

/// The codes of 8 elements.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn code<F: Format>(x: __m256, factor: __m256) -> __m256i {
    let quotient = if F::DIVIDES {
        _mm256_div_ps(x, factor)
    } else {
        _mm256_mul_ps(x, factor)
    };
    let Codes::E2m1(ties, sign) = F::CODES else {
        return avx2::e4m3(quotient);
    };
    let eight = _mm256_set1_epi32(8);
    let zero = _mm256_setzero_ps();
    let sign = match sign {
        Sign::IfBelowZero => {
            let is_below = _mm256_cmp_ps::<_CMP_LT_OQ>(quotient, zero);
            _mm256_and_si256(_mm256_castps_si256(is_below), eight)
        }
        Sign::UnlessAboveZero => {
            let is_above = _mm256_cmp_ps::<_CMP_GT_OQ>(quotient, zero);
            _mm256_andnot_si256(_mm256_castps_si256(is_above), eight)
        }
        Sign::Kept => {
            let bits = _mm256_srli_epi32::<28>(_mm256_castps_si256(quotient));
            _mm256_and_si256(bits, eight)
        }
    };
    _mm256_or_si256(avx2::e2m1(quotient, ties), sign)
}

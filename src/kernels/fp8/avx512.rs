//! AVX-512: 32 elements of 16 bits, or 16 of 32 bits, at a time; the last elements of a row by
//! masked loads and stores.
//!
//! A BF16 element and a power-of-two scale need no floating point: with the sign cleared, BF16 is
//! an 8-bit exponent above a 7-bit mantissa, so dividing by 2ᵏ subtracts k from the exponent, and
//! the E4M3 code is the rebiased number rounded to 3 mantissa bits.

use std::arch::x86_64::*;

use super::element::Kind;
use super::{BLOCK, Element, exact_reciprocal};
use crate::tensor::float8::E4M3_MAX;

const LANES_16: usize = 32;
const LANES_32: usize = 16;

/// From this scale on, subnormal BF16 elements (below 2⁻¹²⁶) are nearer to 0 than to 2⁻⁹ scales,
/// so that the integer path need not tell them apart.
const MIN_SHIFT_SCALE: f32 = f32::from_bits((127 - 110) << 23);

/// The largest magnitude of each block, as bits, joined with what `amax` holds.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn amax_bits<T: Element>(source: &[u8], columns: usize, amax: &mut [u32]) {
    // Lane by lane through all rows first, in the order of memory.
    let mut lanes = vec![_mm512_setzero_si512(); amax.len()];
    for row in source.chunks_exact(columns * T::BYTES) {
        for (part, lanes) in row.chunks(BLOCK * T::BYTES).zip(&mut lanes) {
            *lanes = match T::KIND {
                Kind::Bf16 | Kind::F16 => amax_16(part, *lanes),
                Kind::F32 => amax_32(part, *lanes),
            };
        }
    }
    for (amax, lanes) in amax.iter_mut().zip(lanes) {
        let largest = match T::KIND {
            // The larger of each pair of lanes, as 32-bit lanes.
            Kind::Bf16 | Kind::F16 => _mm512_max_epu32(
                _mm512_srli_epi32::<16>(lanes),
                _mm512_and_si512(lanes, _mm512_set1_epi32(0xffff)),
            ),
            Kind::F32 => lanes,
        };
        *amax = (*amax).max(_mm512_reduce_max_epu32(largest));
    }
}

/// Writes the codes of finite elements.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn encode<T: Element>(source: &[u8], columns: usize, codes: &mut [u8], scales: &[f32]) {
    let rows = source.chunks_exact(columns * T::BYTES);
    for (row, codes) in rows.zip(codes.chunks_exact_mut(columns)) {
        let parts = row.chunks(BLOCK * T::BYTES).zip(codes.chunks_mut(BLOCK));
        for ((part, codes), &scale) in parts.zip(scales) {
            match exact_reciprocal(scale) {
                Some(_) if T::KIND == Kind::Bf16 && scale >= MIN_SHIFT_SCALE => {
                    encode_bf16_by_shift(part, codes, scale);
                }
                Some(reciprocal) => encode_f32::<T, false>(part, codes, reciprocal),
                None => encode_f32::<T, true>(part, codes, scale),
            }
        }
    }
}

/// Up to 32 elements of 16 bits. Whole vectors go without a mask, which some processors are slow
/// with.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_16(chunk: &[u8]) -> __m512i {
    let at = chunk.as_ptr().cast();
    if chunk.len() == 2 * LANES_16 {
        // SAFETY: `chunk` has 64 bytes.
        return unsafe { _mm512_loadu_epi16(at) };
    }
    // SAFETY: the mask covers the elements of `chunk`, fewer than 32.
    unsafe { _mm512_maskz_loadu_epi16((1 << (chunk.len() / 2)) - 1, at) }
}

/// Up to 16 elements of 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_32(chunk: &[u8]) -> __m512i {
    let at = chunk.as_ptr().cast();
    if chunk.len() == 4 * LANES_32 {
        // SAFETY: `chunk` has 64 bytes.
        return unsafe { _mm512_loadu_epi32(at) };
    }
    // SAFETY: the mask covers the elements of `chunk`, fewer than 16.
    unsafe { _mm512_maskz_loadu_epi32((1 << (chunk.len() / 4)) - 1, at) }
}

/// The low bytes of 16-bit lanes, into up to 32 codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_16(codes: &mut [u8], lanes: __m512i) {
    let bytes = _mm512_cvtepi16_epi8(lanes);
    if codes.len() == LANES_16 {
        // SAFETY: `codes` has 32 bytes.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
    } else {
        let mut all = [0; LANES_16];
        // SAFETY: `all` has 32 bytes.
        unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), bytes) };
        codes.copy_from_slice(&all[..codes.len()]);
    }
}

/// The low bytes of 32-bit lanes, into up to 16 codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_32(codes: &mut [u8], lanes: __m512i) {
    let bytes = _mm512_cvtepi32_epi8(lanes);
    if codes.len() == LANES_32 {
        // SAFETY: `codes` has 16 bytes.
        unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), bytes) };
    } else {
        let mut all = [0; LANES_32];
        // SAFETY: `all` has 16 bytes.
        unsafe { _mm_storeu_si128(all.as_mut_ptr().cast(), bytes) };
        codes.copy_from_slice(&all[..codes.len()]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn amax_16(part: &[u8], mut amax: __m512i) -> __m512i {
    let magnitude = _mm512_set1_epi16(0x7fff);
    for chunk in part.chunks(2 * LANES_16) {
        amax = _mm512_max_epu16(amax, _mm512_and_si512(load_16(chunk), magnitude));
    }
    amax
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn amax_32(part: &[u8], mut amax: __m512i) -> __m512i {
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    for chunk in part.chunks(4 * LANES_32) {
        amax = _mm512_max_epu32(amax, _mm512_and_si512(load_32(chunk), magnitude));
    }
    amax
}

/// Codes of BF16 elements by exponent arithmetic on 16-bit lanes. `scale` is a power of two, at
/// least [`MIN_SHIFT_SCALE`], and no element is above 448 scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn encode_bf16_by_shift(part: &[u8], codes: &mut [u8], scale: f32) {
    const MANTISSA_BITS: u32 = 7;
    const DROPPED_BITS: u32 = MANTISSA_BITS - 3;
    const BIAS_CHANGE: i32 = 127 - 7;
    let scale_exponent = (scale.to_bits() >> 23) as i32 - 127;
    let rebias = _mm512_set1_epi16(((scale_exponent + BIAS_CHANGE) << MANTISSA_BITS) as i16);
    let magnitude = _mm512_set1_epi16(0x7fff);
    let one = _mm512_set1_epi16(1);
    let below_half = _mm512_set1_epi16((1 << (DROPPED_BITS - 1)) - 1);
    let smallest_normal = _mm512_set1_epi16(1 << MANTISSA_BITS);
    let sign = _mm512_set1_epi16(0x80);
    for (chunk, codes) in part.chunks(2 * LANES_16).zip(codes.chunks_mut(LANES_16)) {
        let bits = load_16(chunk);
        // The E4M3 number with 7 mantissa bits; below `smallest_normal` if it is subnormal.
        let wide = _mm512_sub_epi16(_mm512_and_si512(bits, magnitude), rebias);
        let odd = _mm512_and_si512(_mm512_srli_epi16::<DROPPED_BITS>(wide), one);
        let rounded = _mm512_add_epi16(_mm512_add_epi16(wide, below_half), odd);
        let mut code = _mm512_srli_epi16::<DROPPED_BITS>(rounded);
        let subnormal = _mm512_cmplt_epi16_mask(wide, smallest_normal);
        if subnormal != 0 {
            code = _mm512_mask_mov_epi16(code, subnormal, subnormal_codes(bits, wide));
        }
        let signs = _mm512_and_si512(_mm512_srli_epi16::<8>(bits), sign);
        store_16(codes, _mm512_or_si512(code, signs));
    }
}

/// The codes, without sign, of the lanes of `wide` that are below the smallest normal number: the
/// mantissa with its leading one, shifted right by as much as the exponent is too small, rounded
/// to nearest even.
#[target_feature(enable = "avx512f,avx512bw")]
fn subnormal_codes(bits: __m512i, wide: __m512i) -> __m512i {
    let one = _mm512_set1_epi16(1);
    let mantissa = _mm512_or_si512(
        _mm512_and_si512(bits, _mm512_set1_epi16(0x7f)),
        _mm512_set1_epi16(0x80),
    );
    // Exponent 1 needs a shift by 4 bits, exponent 0 by 5, and so on; from 13 on nothing is left,
    // and a shift by 16 or more gives 0 by itself.
    let exponent = _mm512_srai_epi16::<7>(wide);
    let shift = _mm512_min_epi16(
        _mm512_sub_epi16(_mm512_set1_epi16(5), exponent),
        _mm512_set1_epi16(15),
    );
    let odd = _mm512_and_si512(_mm512_srlv_epi16(mantissa, shift), one);
    let half = _mm512_sllv_epi16(one, _mm512_sub_epi16(shift, one));
    let rounding = _mm512_add_epi16(_mm512_sub_epi16(half, one), odd);
    _mm512_srlv_epi16(_mm512_add_epi16(mantissa, rounding), shift)
}

/// Codes by way of f32: of `x / factor` if `DIVIDE`, else of `x * factor`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn encode_f32<T: Element, const DIVIDE: bool>(part: &[u8], codes: &mut [u8], factor: f32) {
    let factor = _mm512_set1_ps(factor);
    let chunks = part.chunks(T::BYTES * LANES_32);
    for (chunk, codes) in chunks.zip(codes.chunks_mut(LANES_32)) {
        let x = load_f32::<T>(chunk);
        let unscaled = match DIVIDE {
            true => _mm512_div_ps(x, factor),
            false => _mm512_mul_ps(x, factor),
        };
        store_32(codes, e4m3(unscaled));
    }
}

/// Up to 16 elements as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_f32<T: Element>(chunk: &[u8]) -> __m512 {
    if T::KIND == Kind::F32 {
        return _mm512_castsi512_ps(load_32(chunk));
    }
    let half = if chunk.len() == 2 * LANES_32 {
        // SAFETY: `chunk` has 32 bytes.
        unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) }
    } else {
        _mm512_castsi512_si256(load_16(chunk))
    };
    match T::KIND {
        Kind::F16 => _mm512_cvtph_ps(half),
        _ => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))),
    }
}

/// E4M3 codes of 16 finite numbers, in the low bytes; the same steps as `e4m3_from_f32`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn e4m3(x: __m512) -> __m512i {
    const MANTISSA_SHIFT: u32 = 20;
    const BIAS_CHANGE: i32 = (127 - 7) << 3;
    const ROUND_SUBNORMAL: f32 = (1 << 14) as f32;
    let all = _mm512_castps_si512(x);
    let sign = _mm512_and_si512(_mm512_srli_epi32::<24>(all), _mm512_set1_epi32(0x80));
    let magnitude = _mm512_min_ps(_mm512_abs_ps(x), _mm512_set1_ps(E4M3_MAX));
    let bits = _mm512_castps_si512(magnitude);

    let odd = _mm512_and_si512(
        _mm512_srli_epi32::<MANTISSA_SHIFT>(bits),
        _mm512_set1_epi32(1),
    );
    let below_half = _mm512_set1_epi32((1 << (MANTISSA_SHIFT - 1)) - 1);
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, below_half), odd);
    let normal = _mm512_sub_epi32(
        _mm512_srli_epi32::<MANTISSA_SHIFT>(rounded),
        _mm512_set1_epi32(BIAS_CHANGE),
    );
    let smallest_normal = _mm512_set1_epi32((127 - 6) << 23);
    let is_subnormal = _mm512_cmplt_epi32_mask(bits, smallest_normal);
    let raised = _mm512_add_ps(magnitude, _mm512_set1_ps(ROUND_SUBNORMAL));
    let code = _mm512_mask_sub_epi32(
        normal,
        is_subnormal,
        _mm512_castps_si512(raised),
        _mm512_castps_si512(_mm512_set1_ps(ROUND_SUBNORMAL)),
    );
    _mm512_or_si512(code, sign)
}

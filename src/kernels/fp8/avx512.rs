//! AVX-512: 32 elements of BF16, or 16 of other types as f32, at a time. The parts of rows that lie
//! in one block are what the loops are over; the last part of a row, if shorter, is padded with
//! zeros.
//!
//! Codes come from the addends of [`Rounding`], which a permutation looks up by the top bits of
//! the mantissa. Elements below the smallest normal code are rare; they are divided.

use std::arch::x86_64::*;

use half::bf16;

use super::blocks::{BLOCK, encode_blocks, padded};
use super::element::Element;
use super::rounding::Rounding;
use crate::kernels::float8::E4M3_MAX;
use crate::kernels::lanes::Precision;

/// Bytes of a vector.
const VECTOR: usize = 64;

/// The largest magnitude of each block, as bits, joined with what `amax` holds.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn amax_bits<T: Element>(source: &[u8], columns: usize, amax: &mut [u32]) {
    // Lane by lane through all rows first, in the order of memory.
    let mut lanes = vec![_mm512_setzero_si512(); amax.len()];
    for row in source.chunks_exact(columns * T::BYTES) {
        for (part, lanes) in row.chunks(BLOCK * T::BYTES).zip(&mut lanes) {
            if part.len() == BLOCK * T::BYTES {
                *lanes = amax_of_part::<T>(part, *lanes);
            } else {
                *lanes = amax_of_part::<T>(&padded::<T>(part), *lanes);
            }
        }
    }
    for (amax, lanes) in amax.iter_mut().zip(lanes) {
        let largest = match T::PRECISION {
            // The larger of each pair of lanes, as 32-bit lanes.
            Precision::Bf16 | Precision::F16 => _mm512_max_epu32(
                _mm512_srli_epi32::<16>(lanes),
                _mm512_and_si512(lanes, _mm512_set1_epi32(0xffff)),
            ),
            Precision::F32 => lanes,
        };
        *amax = (*amax).max(_mm512_reduce_max_epu32(largest));
    }
}

/// Writes the codes of finite elements.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn encode<T: Element>(source: &[u8], columns: usize, codes: &mut [u8], scales: &[f32]) {
    let block = |scale| Block::new::<T>(scale);
    let part = |part: &[u8], codes: &mut [u8], block: &Block| encode_part::<T>(part, codes, block);
    encode_blocks::<T, Block>(source, columns, codes, scales, block, part);
}

/// What the elements of a block need.
#[derive(Clone, Copy)]
struct Block {
    /// For 16-bit lanes each addend is there twice, so that 5 bits are an index.
    addends: __m512i,
    /// Magnitude bits of a lane.
    smallest_normal: u32,
    scale: f32,
}

impl Block {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new<T: Element>(scale: f32) -> Block {
        let rounding = match T::PRECISION {
            Precision::Bf16 => Rounding::new::<T, bf16>(scale),
            Precision::F16 | Precision::F32 => Rounding::new::<T, f32>(scale),
        };
        // SAFETY: `addends` has 64 bytes.
        let addends = unsafe { _mm512_loadu_epi32(rounding.addends.as_ptr()) };
        let low_halves = _mm512_and_si512(addends, _mm512_set1_epi32(0xffff));
        Block {
            addends: match T::PRECISION {
                Precision::Bf16 => _mm512_or_si512(low_halves, _mm512_slli_epi32::<16>(addends)),
                Precision::F16 | Precision::F32 => addends,
            },
            smallest_normal: rounding.smallest_normal,
            scale,
        }
    }
}

/// The vectors of a whole part.
#[inline(always)]
fn vectors<T: Element>(part: &[u8]) -> &[[u8; VECTOR]] {
    part[..BLOCK * T::BYTES].as_chunks().0
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(vector: &[u8; VECTOR]) -> __m512i {
    // SAFETY: `vector` has 64 bytes.
    unsafe { _mm512_loadu_si512(vector.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store(vector: &mut [u8; VECTOR], value: __m512i) {
    // SAFETY: `vector` has 64 bytes.
    unsafe { _mm512_storeu_si512(vector.as_mut_ptr().cast(), value) }
}

/// 16 elements as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_f32<T: Element>(elements: &[u8]) -> __m512 {
    let at = elements[..16 * T::BYTES].as_ptr();
    // SAFETY: there are 16 elements.
    unsafe {
        match T::PRECISION {
            Precision::Bf16 => {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
            Precision::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())),
            Precision::F32 => _mm512_loadu_ps(at.cast()),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn amax_of_part<T: Element>(part: &[u8], mut amax: __m512i) -> __m512i {
    for vector in vectors::<T>(part) {
        let bits = load(vector);
        amax = match T::PRECISION {
            Precision::Bf16 | Precision::F16 => {
                _mm512_max_epu16(amax, _mm512_and_si512(bits, _mm512_set1_epi16(i16::MAX)))
            }
            Precision::F32 => {
                _mm512_max_epu32(amax, _mm512_and_si512(bits, _mm512_set1_epi32(i32::MAX)))
            }
        };
    }
    amax
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn encode_part<T: Element>(part: &[u8], codes: &mut [u8], block: &Block) {
    let codes = &mut codes[..BLOCK];
    let chunks = codes.as_chunks_mut().0.iter_mut();
    // Magnitudes less one, so that zero, which has a code like others, is the largest.
    let mut smallest = _mm512_set1_epi32(-1);
    let bound = block.smallest_normal - 1;
    let any_below = if T::PRECISION == Precision::Bf16 {
        for ([a, b], codes) in vectors::<T>(part).as_chunks().0.iter().zip(chunks) {
            let a = codes_of_bf16(a, block, &mut smallest);
            let b = codes_of_bf16(b, block, &mut smallest);
            // Packing goes by quarters of the vectors.
            let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
            let packed = _mm512_packus_epi16(a, b);
            store(codes, _mm512_permutexvar_epi64(order, packed));
        }
        _mm512_cmplt_epu16_mask(smallest, _mm512_set1_epi16(bound as i16)) != 0
    } else {
        let part = part[..BLOCK * T::BYTES].chunks_exact(VECTOR * T::BYTES);
        for (elements, codes) in part.zip(chunks) {
            let (ab, cd) = elements.split_at(VECTOR / 2 * T::BYTES);
            let ab = codes_of_32::<T>(ab, block, &mut smallest);
            let cd = codes_of_32::<T>(cd, block, &mut smallest);
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let packed = _mm512_packus_epi16(ab, cd);
            store(codes, _mm512_permutexvar_epi32(order, packed));
        }
        _mm512_cmplt_epu32_mask(smallest, _mm512_set1_epi32(bound as i32)) != 0
    };
    if any_below {
        divide_part::<T>(part, codes, block);
    }
}

/// The codes of 32 elements, in the low bytes of lanes, and the least magnitude less one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn codes_of_bf16(vector: &[u8; VECTOR], block: &Block, smallest: &mut __m512i) -> __m512i {
    let bits = load(vector);
    let magnitudes = _mm512_and_si512(bits, _mm512_set1_epi16(i16::MAX));
    let less_one = _mm512_sub_epi16(magnitudes, _mm512_set1_epi16(1));
    *smallest = _mm512_min_epu16(*smallest, less_one);
    let top_5_bits = _mm512_srli_epi16::<{ 7 - 5 }>(bits);
    let addends = _mm512_permutexvar_epi16(top_5_bits, block.addends);
    let sums = _mm512_add_epi16(magnitudes, addends);
    let not_zero = _mm512_test_epi16_mask(magnitudes, magnitudes);
    let codes = _mm512_maskz_srli_epi16::<{ 7 - 3 }>(not_zero, sums);
    let sign = _mm512_set1_epi16(0x80);
    _mm512_ternarylogic_epi32::<SELECT>(sign, _mm512_srli_epi16::<8>(bits), codes)
}

/// The codes of 32 elements in the low bytes of 16-bit lanes, packed by quarters of vectors, and
/// the least magnitude less one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn codes_of_32<T: Element>(elements: &[u8], block: &Block, smallest: &mut __m512i) -> __m512i {
    let (a, b) = elements.split_at(16 * T::BYTES);
    _mm512_packus_epi32(
        codes_of_f32(load_f32::<T>(a), block, smallest),
        codes_of_f32(load_f32::<T>(b), block, smallest),
    )
}

/// The codes of 16 numbers, in the low bytes of lanes, and the least magnitude less one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn codes_of_f32(x: __m512, block: &Block, smallest: &mut __m512i) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let magnitudes = _mm512_and_si512(bits, _mm512_set1_epi32(i32::MAX));
    let less_one = _mm512_sub_epi32(magnitudes, _mm512_set1_epi32(1));
    *smallest = _mm512_min_epu32(*smallest, less_one);
    let top_4_bits = _mm512_srli_epi32::<{ 23 - 4 }>(bits);
    let addends = _mm512_permutexvar_epi32(top_4_bits, block.addends);
    let sums = _mm512_add_epi32(magnitudes, addends);
    let not_zero = _mm512_test_epi32_mask(magnitudes, magnitudes);
    let codes = _mm512_maskz_srli_epi32::<{ 23 - 3 }>(not_zero, sums);
    let sign = _mm512_set1_epi32(0x80);
    _mm512_ternarylogic_epi32::<SELECT>(sign, _mm512_srli_epi32::<24>(bits), codes)
}

/// For each bit: of the second operand where the first has a one, else of the third.
const SELECT: i32 = 0b1100_1010;

/// Codes by division, where some of 16 elements are below the smallest normal one.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw")]
fn divide_part<T: Element>(part: &[u8], codes: &mut [u8], block: &Block) {
    let bound = match T::PRECISION {
        Precision::Bf16 => bf16::from_magnitude_bits(block.smallest_normal),
        Precision::F16 | Precision::F32 => f32::from_bits(block.smallest_normal),
    };
    let bound = _mm512_set1_ps(bound);
    let scale = _mm512_set1_ps(block.scale);
    let elements = part.chunks_exact(16 * T::BYTES);
    for (elements, codes) in elements.zip(codes.as_chunks_mut::<16>().0) {
        let x = load_f32::<T>(elements);
        if _mm512_cmplt_ps_mask(_mm512_abs_ps(x), bound) != 0 {
            let bytes = _mm512_cvtepi32_epi8(e4m3(_mm512_div_ps(x, scale)));
            // SAFETY: `codes` has 16 bytes.
            unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), bytes) };
        }
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

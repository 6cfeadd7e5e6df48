//! AVX2: 16 elements of BF16, or 8 of other types as f32, at a time, in the same way as AVX-512
//! does it.

use std::arch::x86_64::*;

use half::bf16;

use super::blocks::{BLOCK, encode_blocks, padded};
use super::element::Element;
use super::rounding::{Rounding, SEGMENTS};
use super::scalar;
use crate::kernels::avx2::{self, STEP};
use crate::kernels::lanes::Precision;

/// Bytes of a vector.
const VECTOR: usize = 32;

/// The largest magnitude of each block, as bits, joined with what `amax` holds.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn amax_bits<T: Element>(source: &[u8], columns: usize, amax: &mut [u32]) {
    if T::PRECISION == Precision::F32 {
        return scalar::amax_bits::<T>(source, columns, amax);
    }
    // Lane by lane through all rows first, in the order of memory.
    let mut lanes = vec![_mm256_setzero_si256(); amax.len()];
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
        let mut of_lanes = [0u16; VECTOR / 2];
        // SAFETY: `of_lanes` has 32 bytes.
        unsafe { _mm256_storeu_si256(of_lanes.as_mut_ptr().cast(), lanes) };
        *amax = of_lanes.into_iter().map(u32::from).fold(*amax, u32::max);
    }
}

/// Writes the codes of finite elements.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn encode<T: Element>(source: &[u8], columns: usize, codes: &mut [u8], scales: &[f32]) {
    let block = |scale| Block::new::<T>(scale);
    let part = |part: &[u8], codes: &mut [u8], block: &Block| encode_part::<T>(part, codes, block);
    encode_blocks::<T, Block>(source, columns, codes, scales, block, part);
}

/// What the elements of a block need.
#[derive(Clone, Copy)]
struct Block {
    /// For 32-bit lanes the addends of the first half of the segments and of the second half. For
    /// 16-bit lanes the low and the high bytes of all, each twice, as byte shuffles need them.
    addends: [__m256i; 2],
    /// Magnitude bits of a lane.
    smallest_normal: i32,
    scale: f32,
}

impl Block {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn new<T: Element>(scale: f32) -> Block {
        let rounding = match T::PRECISION {
            Precision::Bf16 => Rounding::new::<T, bf16>(scale),
            Precision::F16 | Precision::F32 => Rounding::new::<T, f32>(scale),
        };
        let addends = rounding.addends;
        let low = addends.map(|addend| addend as u8);
        let high = addends.map(|addend| (addend >> 8) as u8);
        // SAFETY: `addends` has 64 bytes, `low` and `high` have 16.
        let addends = unsafe {
            match T::PRECISION {
                Precision::Bf16 => [low, high].map(|bytes: [u8; SEGMENTS]| {
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()))
                }),
                Precision::F16 | Precision::F32 => [
                    _mm256_loadu_si256(addends.as_ptr().cast()),
                    _mm256_loadu_si256(addends.as_ptr().add(SEGMENTS / 2).cast()),
                ],
            }
        };
        Block {
            addends,
            smallest_normal: rounding.smallest_normal as i32,
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
#[target_feature(enable = "avx2,f16c")]
fn load(vector: &[u8; VECTOR]) -> __m256i {
    // SAFETY: `vector` has 32 bytes.
    unsafe { _mm256_loadu_si256(vector.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn store(vector: &mut [u8; VECTOR], value: __m256i) {
    // SAFETY: `vector` has 32 bytes.
    unsafe { _mm256_storeu_si256(vector.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn amax_of_part<T: Element>(part: &[u8], mut amax: __m256i) -> __m256i {
    let magnitude = _mm256_set1_epi16(0x7fff);
    for vector in vectors::<T>(part) {
        amax = _mm256_max_epu16(amax, _mm256_and_si256(load(vector), magnitude));
    }
    amax
}

/// 8 elements as f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_f32<T: Element>(elements: &[u8]) -> __m256 {
    let at = elements[..8 * T::BYTES].as_ptr();
    // SAFETY: there are 8 elements.
    unsafe {
        match T::PRECISION {
            Precision::F32 => _mm256_loadu_ps(at.cast()),
            _ => _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn encode_part<T: Element>(part: &[u8], codes: &mut [u8], block: &Block) {
    let codes = &mut codes[..BLOCK];
    let chunks = codes.as_chunks_mut::<VECTOR>().0.iter_mut();
    // Magnitudes less one, so that zero, which has a code like others, is the largest.
    let mut smallest = _mm256_set1_epi32(-1);
    let bound = block.smallest_normal - 1;
    let at_least = if T::PRECISION == Precision::Bf16 {
        for ([a, b], codes) in vectors::<T>(part).as_chunks().0.iter().zip(chunks) {
            let a = codes_of_bf16(a, block, &mut smallest);
            let b = codes_of_bf16(b, block, &mut smallest);
            // Packing goes by halves of the vectors.
            let packed = _mm256_packus_epi16(a, b);
            store(codes, _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
        let bound = _mm256_set1_epi16(bound as i16);
        _mm256_cmpeq_epi16(_mm256_max_epu16(smallest, bound), smallest)
    } else {
        let part = part[..BLOCK * T::BYTES].chunks_exact(VECTOR * T::BYTES);
        for (elements, codes) in part.zip(chunks) {
            let (ab, cd) = elements.split_at(VECTOR / 2 * T::BYTES);
            let ab = codes_of_16::<T>(ab, block, &mut smallest);
            let cd = codes_of_16::<T>(cd, block, &mut smallest);
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let packed = _mm256_packus_epi16(ab, cd);
            store(codes, _mm256_permutevar8x32_epi32(packed, order));
        }
        let bound = _mm256_set1_epi32(bound);
        _mm256_cmpeq_epi32(_mm256_max_epu32(smallest, bound), smallest)
    };
    if _mm256_movemask_epi8(at_least) != -1 {
        divide_part::<T>(part, codes, block);
    }
}

/// The codes of 16 elements, in the low bytes of lanes, and the least magnitude.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn codes_of_bf16(vector: &[u8; VECTOR], block: &Block, smallest: &mut __m256i) -> __m256i {
    let bits = load(vector);
    let magnitudes = _mm256_and_si256(bits, _mm256_set1_epi16(i16::MAX));
    let less_one = _mm256_add_epi16(magnitudes, _mm256_set1_epi16(-1));
    *smallest = _mm256_min_epu16(*smallest, less_one);
    let segment = _mm256_and_si256(_mm256_srli_epi16::<{ 7 - 4 }>(bits), _mm256_set1_epi16(0xf));
    // A byte shuffle gives 0 for an index with the top bit set.
    let for_low = _mm256_or_si256(segment, _mm256_set1_epi16(i16::MIN));
    let for_high = _mm256_or_si256(_mm256_slli_epi16::<8>(segment), _mm256_set1_epi16(0x80));
    let addends = _mm256_or_si256(
        _mm256_shuffle_epi8(block.addends[0], for_low),
        _mm256_shuffle_epi8(block.addends[1], for_high),
    );
    let codes = _mm256_srli_epi16::<{ 7 - 3 }>(_mm256_add_epi16(magnitudes, addends));
    let are_zero = _mm256_cmpeq_epi16(magnitudes, _mm256_setzero_si256());
    let codes = _mm256_andnot_si256(are_zero, codes);
    let signs = _mm256_and_si256(_mm256_srli_epi16::<8>(bits), _mm256_set1_epi16(0x80));
    _mm256_or_si256(codes, signs)
}

/// The codes of 16 elements in the low bytes of 16-bit lanes, packed by halves of vectors, and the
/// least magnitude.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn codes_of_16<T: Element>(elements: &[u8], block: &Block, smallest: &mut __m256i) -> __m256i {
    let (a, b) = elements.split_at(8 * T::BYTES);
    _mm256_packus_epi32(
        codes_of_f32(load_f32::<T>(a), block, smallest),
        codes_of_f32(load_f32::<T>(b), block, smallest),
    )
}

/// The codes of 8 numbers, in the low bytes of lanes, and the least magnitude.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn codes_of_f32(x: __m256, block: &Block, smallest: &mut __m256i) -> __m256i {
    let bits = _mm256_castps_si256(x);
    let magnitudes = _mm256_and_si256(bits, _mm256_set1_epi32(i32::MAX));
    let less_one = _mm256_add_epi32(magnitudes, _mm256_set1_epi32(-1));
    *smallest = _mm256_min_epu32(*smallest, less_one);
    // 3 bits are the index in a half; the bit above them, as a sign, chooses the half.
    let index = _mm256_srli_epi32::<{ 23 - 4 }>(bits);
    let half = _mm256_castsi256_ps(_mm256_slli_epi32::<{ 32 - 23 }>(bits));
    let [first, second] = block.addends;
    let addends = _mm256_castps_si256(_mm256_blendv_ps(
        _mm256_permutevar8x32_ps(_mm256_castsi256_ps(first), index),
        _mm256_permutevar8x32_ps(_mm256_castsi256_ps(second), index),
        half,
    ));
    let codes = _mm256_srli_epi32::<{ 23 - 3 }>(_mm256_add_epi32(magnitudes, addends));
    let are_zero = _mm256_cmpeq_epi32(magnitudes, _mm256_setzero_si256());
    let codes = _mm256_andnot_si256(are_zero, codes);
    let signs = _mm256_and_si256(_mm256_srli_epi32::<24>(bits), _mm256_set1_epi32(0x80));
    _mm256_or_si256(codes, signs)
}

/// The codes of a whole part by division.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,f16c")]
fn divide_part<T: Element>(part: &[u8], codes: &mut [u8], block: &Block) {
    let scale = _mm256_set1_ps(block.scale);
    let elements = part.chunks_exact(STEP * T::BYTES);
    for (elements, codes) in elements.zip(codes.chunks_exact_mut(STEP)) {
        let [a, b, c, d] = avx2::load(T::PRECISION, elements);
        let codes_of_lanes = [
            avx2::e4m3(_mm256_div_ps(a, scale)),
            avx2::e4m3(_mm256_div_ps(b, scale)),
            avx2::e4m3(_mm256_div_ps(c, scale)),
            avx2::e4m3(_mm256_div_ps(d, scale)),
        ];
        avx2::store_bytes(codes_of_lanes, codes);
    }
}

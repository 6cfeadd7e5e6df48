//! AVX2: elements as lanes of f32, 32 at a time, and codes in these lanes as bytes.
//!
//! Lanes are in an order of their own, that in which halves of vectors are widened and narrowed: of 16 elements, the
//! first vector has 0 to 3 and 8 to 11, the second 4 to 7 and 12 to 15.

use std::arch::x86_64::*;

use super::float4::Ties;
use super::lanes::Precision;

/// Elements that are encoded at once.
pub(super) const STEP: usize = 32;

/// Bytes of a vector.
const VECTOR: usize = 32;

/// Quotients of 32 elements.
pub(super) type Lanes = [__m256; 4];

/// Codes of 32 elements, in the low bytes of lanes whose other bytes are 0.
pub(super) type Codes = [__m256i; 4];

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_vector(bytes: &[u8]) -> __m256i {
    let bytes: &[u8; VECTOR] = bytes.first_chunk().expect("a whole vector");
    // SAFETY: there are 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn store_vector(vector: __m256i, bytes: &mut [u8]) {
    let bytes: &mut [u8; VECTOR] = bytes.first_chunk_mut().expect("a whole vector");
    // SAFETY: there are 32 bytes.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

/// 16 elements of F16 as numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn f16_values(elements: __m256i) -> [__m256; 2] {
    let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(elements);
    [
        _mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
        _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves)),
    ]
}

/// 16 elements of BF16 as numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn bf16_values(elements: __m256i) -> [__m256; 2] {
    let zero = _mm256_setzero_si256();
    [
        _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, elements)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, elements)),
    ]
}

/// 16 elements.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_half(precision: Precision, elements: &[u8]) -> [__m256; 2] {
    match precision {
        Precision::Bf16 => bf16_values(load_vector(elements)),
        Precision::F16 => f16_values(load_vector(elements)),
        Precision::F32 => {
            let a = _mm256_castsi256_ps(load_vector(elements));
            let b = _mm256_castsi256_ps(load_vector(&elements[VECTOR..]));
            [
                _mm256_permute2f128_ps::<0x20>(a, b),
                _mm256_permute2f128_ps::<0x31>(a, b),
            ]
        }
    }
}

/// The first 32 of `elements`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load(precision: Precision, elements: &[u8]) -> Lanes {
    let (first, second) = elements.split_at(STEP / 2 * precision.bytes());
    let ([a, b], [c, d]) = (load_half(precision, first), load_half(precision, second));
    [a, b, c, d]
}

/// Codes as bytes, in the order of the elements.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow([a, b, c, d]: Codes) -> __m256i {
    let packed = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
    _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
}

/// Writes codes, a byte each.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn store_bytes(codes: Codes, target: &mut [u8]) {
    store_vector(narrow(codes), target);
}

/// Writes codes of four bits, two in a byte, the first in its lower half.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn store_nibbles(codes: Codes, target: &mut [u8]) {
    // 1 times the first and 16 times the second.
    let pairs = _mm256_maddubs_epi16(narrow(codes), _mm256_set1_epi16(0x1001));
    let packed = _mm256_packus_epi16(pairs, pairs);
    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
    let target: &mut [u8; VECTOR / 2] = target.first_chunk_mut().expect("half a vector");
    // SAFETY: there are 16 bytes.
    unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), _mm256_castsi256_si128(packed)) }
}

/// The smallest lane of 16 bits, without sign.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn smallest(lanes: __m256i) -> u16 {
    let halves = [
        _mm256_castsi256_si128(lanes),
        _mm256_extracti128_si256::<1>(lanes),
    ];
    let lanes = _mm_min_epu16(halves[0], halves[1]);
    _mm_extract_epi16::<0>(_mm_minpos_epu16(lanes)) as u16
}

/// The largest magnitude of elements of 16 bits, as bits. They are whole vectors.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn amax_bits_of_16(elements: &[u8]) -> u32 {
    let sign = _mm256_set1_epi16(i16::MIN);
    let mut least = _mm256_set1_epi16(-1);
    for vector in elements.chunks_exact(VECTOR) {
        // All bits inverted but that of the sign, which is 1: the smaller, the larger the magnitude.
        let inverted = _mm256_or_si256(load_vector(vector), sign);
        let inverted = _mm256_xor_si256(inverted, _mm256_set1_epi16(i16::MAX));
        least = _mm256_min_epu16(least, inverted);
    }
    u32::from(!smallest(least))
}

/// The smallest and the largest [order](super::fp8::Element::order) of elements of 16 bits, and zero. They are whole vectors.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn orders_of_16(elements: &[u8]) -> [i32; 2] {
    let mut least = _mm256_setzero_si256();
    let mut most = least;
    for vector in elements.chunks_exact(VECTOR) {
        let bits = load_vector(vector);
        let signs = _mm256_srai_epi16::<15>(bits);
        let order = _mm256_xor_si256(bits, _mm256_and_si256(signs, _mm256_set1_epi16(i16::MAX)));
        least = _mm256_min_epi16(least, order);
        most = _mm256_max_epi16(most, order);
    }
    let sign = _mm256_set1_epi16(i16::MIN);
    let least = smallest(_mm256_xor_si256(least, sign)) ^ 0x8000;
    let most = !smallest(_mm256_xor_si256(most, _mm256_set1_epi16(i16::MAX))) ^ 0x8000;
    [least, most].map(|order| i32::from(order as i16))
}

/// The magnitudes of lanes, at most `most`, as bits.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn magnitude(x: __m256, most: f32) -> __m256i {
    let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
    _mm256_castps_si256(_mm256_min_ps(magnitude, _mm256_set1_ps(most)))
}

/// As [`e4m3_from_f32`](super::float8::e4m3_from_f32).
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn e4m3(x: __m256) -> __m256i {
    const MIN_NORMAL: i32 = (127 - 6) << 23;
    const MANTISSA_SHIFT: i32 = 23 - 3;
    const BIAS_CHANGE: i32 = (127 - 7) << 3;
    let bits = magnitude(x, super::float8::E4M3_MAX);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<MANTISSA_SHIFT>(bits), ones());
    let below_half =
        _mm256_set1_epi32((1 << (MANTISSA_SHIFT - 1)) - 1 - (BIAS_CHANGE << MANTISSA_SHIFT));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, below_half), odd);
    let normal = _mm256_srli_epi32::<MANTISSA_SHIFT>(rounded);
    // The unit in the last place of 2¹⁴ is 2⁻⁹.
    let round = _mm256_set1_ps((1 << 14) as f32);
    let subnormal = _mm256_add_ps(_mm256_castsi256_ps(bits), round);
    let subnormal = _mm256_sub_epi32(_mm256_castps_si256(subnormal), _mm256_castps_si256(round));
    let is_below = _mm256_cmpgt_epi32(_mm256_set1_epi32(MIN_NORMAL), bits);
    let code = _mm256_blendv_epi8(normal, subnormal, is_below);
    let sign = _mm256_srli_epi32::<24>(_mm256_castps_si256(x));
    _mm256_or_si256(code, _mm256_and_si256(sign, _mm256_set1_epi32(0x80)))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn ones() -> __m256i {
    _mm256_set1_epi32(1)
}

/// As [`e2m1_magnitude`](super::float4::e2m1_magnitude).
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn e2m1(x: __m256, ties: Ties) -> __m256i {
    const ONE: i32 = 127 << 23;
    const MANTISSA_SHIFT: i32 = 23 - 1;
    const BIAS_CHANGE: i32 = (127 - 1) << 1;
    const BELOW_HALF: i32 = (1 << (MANTISSA_SHIFT - 1)) - 1 - (BIAS_CHANGE << MANTISSA_SHIFT);
    let bits = magnitude(x, super::float4::E2M1_MAX);
    let upward = match ties {
        Ties::Even => {
            let odd = _mm256_and_si256(_mm256_srli_epi32::<MANTISSA_SHIFT>(bits), ones());
            _mm256_add_epi32(odd, _mm256_set1_epi32(BELOW_HALF))
        }
        Ties::TowardZero => _mm256_set1_epi32(BELOW_HALF),
        Ties::Away => _mm256_set1_epi32(BELOW_HALF + 1),
    };
    let normal = _mm256_srli_epi32::<MANTISSA_SHIFT>(_mm256_add_epi32(bits, upward));
    // The bits from which on 0.25 and 0.75 are rounded up.
    let (quarter, three_quarters) = (0.25f32.to_bits() as i32, 0.75f32.to_bits() as i32);
    let [quarter, three_quarters] = match ties {
        Ties::Even => [quarter + 1, three_quarters],
        Ties::TowardZero => [quarter + 1, three_quarters + 1],
        Ties::Away => [quarter, three_quarters],
    };
    let half = _mm256_cmpgt_epi32(bits, _mm256_set1_epi32(quarter - 1));
    let one = _mm256_cmpgt_epi32(bits, _mm256_set1_epi32(three_quarters - 1));
    // True is -1.
    let subnormal = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_add_epi32(half, one));
    let is_below = _mm256_cmpgt_epi32(_mm256_set1_epi32(ONE), bits);
    _mm256_blendv_epi8(normal, subnormal, is_below)
}

/// The numbers of 16 codes of E4M3, of which none is a NaN, times 2⁻⁸.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn e4m3_values(codes: __m128i) -> [__m256; 2] {
    // As F16, whose exponents have a bias that is 8 larger.
    let codes = _mm256_cvtepi8_epi16(codes);
    let magnitudes = _mm256_and_si256(codes, _mm256_set1_epi16(0x7f));
    let signs = _mm256_and_si256(codes, _mm256_set1_epi16(i16::MIN));
    let shifted = _mm256_slli_epi16::<7>(magnitudes);
    f16_values(_mm256_or_si256(shifted, signs))
}

/// What codes of E4M3 are multiplied by in place of `scale`, if that gives the same products of all numbers.
#[inline(always)]
pub(super) fn e4m3_factor(scale: f32) -> Option<f32> {
    const TOO_LARGE: f32 = f32::from_bits((119 + 127) << 23);
    (scale.abs() < TOO_LARGE).then_some(scale * 256.0)
}

/// The products of 32 codes of E4M3 and the scale with this [`e4m3_factor`]; `None` if one of them is a NaN.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn e4m3_products(codes: &[u8], factor: f32) -> Option<Lanes> {
    let codes = load_vector(codes);
    let nan = _mm256_set1_epi8(0x7f);
    let are_nan = _mm256_cmpeq_epi8(_mm256_and_si256(codes, nan), nan);
    if _mm256_movemask_epi8(are_nan) != 0 {
        return None;
    }
    let factor = _mm256_set1_ps(factor);
    let [a, b] = e4m3_values(_mm256_castsi256_si128(codes));
    let [c, d] = e4m3_values(_mm256_extracti128_si256::<1>(codes));
    Some([
        _mm256_mul_ps(a, factor),
        _mm256_mul_ps(b, factor),
        _mm256_mul_ps(c, factor),
        _mm256_mul_ps(d, factor),
    ])
}

/// Whether 32 elements are the products of codes of E4M3 and the scale with this [`e4m3_factor`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn e4m3_products_are(
    precision: Precision,
    elements: &[u8],
    codes: &[u8],
    factor: f32,
) -> bool {
    let Some([a, b, c, d]) = e4m3_products(codes, factor) else {
        return false;
    };
    let [e, f, g, h] = load(precision, elements);
    let first = _mm256_and_ps(
        _mm256_cmp_ps::<_CMP_EQ_OQ>(a, e),
        _mm256_cmp_ps::<_CMP_EQ_OQ>(b, f),
    );
    let second = _mm256_and_ps(
        _mm256_cmp_ps::<_CMP_EQ_OQ>(c, g),
        _mm256_cmp_ps::<_CMP_EQ_OQ>(d, h),
    );
    _mm256_movemask_ps(_mm256_and_ps(first, second)) == 0xff
}

/// The numbers of 16 codes of E2M1.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn e2m1_values(codes: __m128i) -> [__m256; 2] {
    // The bytes of the numbers as BF16.
    const UPPER: [u8; 8] = [0, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40];
    const LOWER: [u8; 8] = [0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0];
    const SIGN: u64 = 0x8080_8080_8080_8080;
    let upper = u64::from_le_bytes(UPPER);
    let upper = _mm_set_epi64x((upper | SIGN) as i64, upper as i64);
    let lower = _mm_set1_epi64x(i64::from_le_bytes(LOWER));
    let (upper, lower) = (
        _mm_shuffle_epi8(upper, codes),
        _mm_shuffle_epi8(lower, codes),
    );
    let first = _mm_unpacklo_epi8(lower, upper);
    let second = _mm_unpackhi_epi8(lower, upper);
    bf16_values(_mm256_set_m128i(second, first))
}

/// The products of 32 codes of E2M1, two in a byte of `packed`, and scales, of the first 16 of them and of the others.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn e2m1_products(packed: &[u8], scales: [f32; 2]) -> Lanes {
    let packed: &[u8; VECTOR / 2] = packed.first_chunk().expect("half a vector");
    // SAFETY: there are 16 bytes.
    let packed = unsafe { _mm_loadu_si128(packed.as_ptr().cast()) };
    let nibble = _mm_set1_epi8(0xf);
    let low = _mm_and_si128(packed, nibble);
    let high = _mm_and_si128(_mm_srli_epi16::<4>(packed), nibble);
    let [a, b] = e2m1_values(_mm_unpacklo_epi8(low, high));
    let [c, d] = e2m1_values(_mm_unpackhi_epi8(low, high));
    let (first, second) = (_mm256_set1_ps(scales[0]), _mm256_set1_ps(scales[1]));
    [
        _mm256_mul_ps(a, first),
        _mm256_mul_ps(b, first),
        _mm256_mul_ps(c, second),
        _mm256_mul_ps(d, second),
    ]
}

/// Numbers that are not NaN, rounded to BF16, in the low halves of lanes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn bf16_bits(x: __m256) -> __m256i {
    let bits = _mm256_castps_si256(x);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), ones());
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    _mm256_srli_epi32::<16>(rounded)
}

/// Writes 16 numbers, of which none is a NaN.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn store_half(precision: Precision, [a, b]: [__m256; 2], target: &mut [u8]) {
    match precision {
        Precision::Bf16 => store_vector(_mm256_packus_epi32(bf16_bits(a), bf16_bits(b)), target),
        Precision::F16 => {
            let a = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a);
            let b = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(b);
            let halves = _mm256_set_m128i(_mm_unpackhi_epi64(a, b), _mm_unpacklo_epi64(a, b));
            store_vector(halves, target);
        }
        Precision::F32 => {
            let first = _mm256_permute2f128_ps::<0x20>(a, b);
            let second = _mm256_permute2f128_ps::<0x31>(a, b);
            store_vector(_mm256_castps_si256(first), target);
            store_vector(_mm256_castps_si256(second), &mut target[VECTOR..]);
        }
    }
}

/// Writes 32 numbers, of which none is a NaN, each the nearest one to it of `precision`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn store(precision: Precision, [a, b, c, d]: Lanes, target: &mut [u8]) {
    let (first, second) = target.split_at_mut(STEP / 2 * precision.bytes());
    store_half(precision, [a, b], first);
    store_half(precision, [c, d], second);
}

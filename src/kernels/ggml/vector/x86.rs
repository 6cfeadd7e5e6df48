//! Vectors of SSE2, AVX2 and AVX-512.

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::lanes::{MAX_LANES, Vector, WHOLE};

/// Lanes of SSE2, which every processor has.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct F32x4(__m128);

/// Lanes of AVX2. Only loops that run on [`CpuPath::Avx2`](crate::kernels::CpuPath) may use it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct F32x8(__m256);

/// Lanes of AVX-512 F. Only loops that run on [`CpuPath::Avx512`](crate::kernels::CpuPath) may use it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct F32x16(__m512);

macro_rules! operators {
    ($vector:ident: $($operator:ident $method:ident $intrinsic:ident,)*) => {$(
        impl $operator for $vector {
            type Output = $vector;

            #[inline(always)]
            fn $method(self, other: $vector) -> $vector {
                // SAFETY: the processor has these instructions where the type may be used.
                $vector(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}

operators! { F32x4:
    Add add _mm_add_ps,
    Sub sub _mm_sub_ps,
    Mul mul _mm_mul_ps,
    Div div _mm_div_ps,
}

operators! { F32x8:
    Add add _mm256_add_ps,
    Sub sub _mm256_sub_ps,
    Mul mul _mm256_mul_ps,
    Div div _mm256_div_ps,
}

operators! { F32x16:
    Add add _mm512_add_ps,
    Sub sub _mm512_sub_ps,
    Mul mul _mm512_mul_ps,
    Div div _mm512_div_ps,
}

#[inline(always)]
fn first<T, const N: usize>(values: &[T]) -> &[T; N] {
    values.first_chunk().expect("one for each lane")
}

#[inline(always)]
fn first_mut<T, const N: usize>(values: &mut [T]) -> &mut [T; N] {
    values.first_chunk_mut().expect("one for each lane")
}

// SAFETY of all that follows: the processor has these instructions where the types may be used, and
// loads and stores are within arrays of as many elements.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for F32x4 {
    const LANES: usize = 4;

    type Mask = __m128;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        F32x4(unsafe { _mm_set1_ps(x) })
    }

    #[inline(always)]
    fn load(values: &[f32; MAX_LANES]) -> Self {
        F32x4(unsafe { _mm_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; MAX_LANES]) {
        unsafe { _mm_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn from_bits_of(bytes: &[u8], shift: u32, mask: u8) -> Self {
        let bytes = i32::from_le_bytes(*first(bytes));
        unsafe {
            let zero = _mm_setzero_si128();
            let bytes = _mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), zero);
            let bytes = _mm_unpacklo_epi16(bytes, zero);
            let shifted = _mm_srl_epi32(bytes, _mm_cvtsi32_si128(shift as i32));
            let kept = _mm_and_si128(shifted, _mm_set1_epi32(mask.into()));
            F32x4(_mm_cvtepi32_ps(kept))
        }
    }

    #[inline(always)]
    fn from_signed(bytes: &[u8]) -> Self {
        let bytes = i32::from_le_bytes(*first(bytes));
        unsafe {
            // Each byte becomes the highest of its lane.
            let bytes = _mm_cvtsi32_si128(bytes);
            let bytes = _mm_unpacklo_epi8(bytes, bytes);
            let bytes = _mm_srai_epi32::<24>(_mm_unpacklo_epi16(bytes, bytes));
            F32x4(_mm_cvtepi32_ps(bytes))
        }
    }

    #[inline(always)]
    fn write(self, values: &mut [f32]) {
        let values: &mut [f32; 4] = first_mut(values);
        unsafe { _mm_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        F32x4(unsafe { _mm_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        F32x4(unsafe { _mm_andnot_ps(_mm_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn lesser(self, other: Self) -> Self {
        F32x4(unsafe { _mm_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        F32x4(unsafe { _mm_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn less(self, other: Self) -> __m128 {
        unsafe { _mm_cmplt_ps(self.0, other.0) }
    }

    #[inline(always)]
    fn differs(self, other: Self) -> __m128 {
        unsafe { _mm_cmpneq_ps(self.0, other.0) }
    }

    #[inline(always)]
    fn both(a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_and_ps(a, b) }
    }

    #[inline(always)]
    fn any(mask: __m128) -> bool {
        unsafe { _mm_movemask_ps(mask) != 0 }
    }

    #[inline(always)]
    fn select(mask: __m128, yes: Self, no: Self) -> Self {
        F32x4(unsafe { _mm_or_ps(_mm_and_ps(mask, yes.0), _mm_andnot_ps(mask, no.0)) })
    }

    #[inline(always)]
    fn whole(self, kept: u32) -> Self {
        unsafe {
            let kept = _mm_and_ps(self.0, _mm_set1_ps(f32::from_bits(kept)));
            F32x4(_mm_or_ps(kept, _mm_set1_ps(f32::from_bits(WHOLE))))
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for F32x8 {
    const LANES: usize = 8;

    type Mask = __m256;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        F32x8(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    fn load(values: &[f32; MAX_LANES]) -> Self {
        F32x8(unsafe { _mm256_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; MAX_LANES]) {
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn from_bits_of(bytes: &[u8], shift: u32, mask: u8) -> Self {
        let bytes: &[u8; 8] = first(bytes);
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()));
            let shifted = _mm256_srl_epi32(bytes, _mm_cvtsi32_si128(shift as i32));
            let kept = _mm256_and_si256(shifted, _mm256_set1_epi32(mask.into()));
            F32x8(_mm256_cvtepi32_ps(kept))
        }
    }

    #[inline(always)]
    fn from_signed(bytes: &[u8]) -> Self {
        let bytes: &[u8; 8] = first(bytes);
        unsafe {
            let bytes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()));
            F32x8(_mm256_cvtepi32_ps(bytes))
        }
    }

    #[inline(always)]
    fn write(self, values: &mut [f32]) {
        let values: &mut [f32; 8] = first_mut(values);
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        F32x8(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        F32x8(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn lesser(self, other: Self) -> Self {
        F32x8(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        F32x8(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn less(self, other: Self) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn differs(self, other: Self) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_NEQ_UQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn both(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_and_ps(a, b) }
    }

    #[inline(always)]
    fn any(mask: __m256) -> bool {
        unsafe { _mm256_movemask_ps(mask) != 0 }
    }

    #[inline(always)]
    fn select(mask: __m256, yes: Self, no: Self) -> Self {
        F32x8(unsafe { _mm256_blendv_ps(no.0, yes.0, mask) })
    }

    #[inline(always)]
    fn whole(self, kept: u32) -> Self {
        unsafe {
            let kept = _mm256_and_ps(self.0, _mm256_set1_ps(f32::from_bits(kept)));
            F32x8(_mm256_or_ps(kept, _mm256_set1_ps(f32::from_bits(WHOLE))))
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for F32x16 {
    const LANES: usize = 16;

    type Mask = __mmask16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        F32x16(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn load(values: &[f32; MAX_LANES]) -> Self {
        F32x16(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; MAX_LANES]) {
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn from_bits_of(bytes: &[u8], shift: u32, mask: u8) -> Self {
        let bytes: &[u8; 16] = first(bytes);
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            let shifted = _mm512_srl_epi32(bytes, _mm_cvtsi32_si128(shift as i32));
            let kept = _mm512_and_si512(shifted, _mm512_set1_epi32(mask.into()));
            F32x16(_mm512_cvtepi32_ps(kept))
        }
    }

    #[inline(always)]
    fn from_signed(bytes: &[u8]) -> Self {
        let bytes: &[u8; 16] = first(bytes);
        unsafe {
            let bytes = _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            F32x16(_mm512_cvtepi32_ps(bytes))
        }
    }

    #[inline(always)]
    fn write(self, values: &mut [f32]) {
        let values: &mut [f32; 16] = first_mut(values);
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        F32x16(unsafe { _mm512_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        F32x16(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn lesser(self, other: Self) -> Self {
        F32x16(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        F32x16(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn less(self, other: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn differs(self, other: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn both(a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }

    #[inline(always)]
    fn any(mask: __mmask16) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        F32x16(unsafe { _mm512_mask_blend_ps(mask, no.0, yes.0) })
    }

    #[inline(always)]
    fn whole(self, kept: u32) -> Self {
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let kept = _mm512_and_si512(bits, _mm512_set1_epi32(kept as i32));
            let whole = _mm512_or_si512(kept, _mm512_set1_epi32(WHOLE as i32));
            F32x16(_mm512_castsi512_ps(whole))
        }
    }
}

//! Block quantization to E4M3, one row of 128 × 128 blocks at a time.
//!
//! A block has one scale `s`; the code of `x` is `e4m3(f32(x) / s)`, rounded to nearest even and
//! saturated at ±448. With `amax` the largest magnitude of the block:
//!
//! - power-of-two scales: `s` is the smallest power of two with `amax / s ≤ 448`;
//! - exact scales: `s = f32(f64(amax) / 448)`.
//!
//! Neither is ever below 2⁻¹²⁶, and a block of zeros has `s = 1`.
//!
//! There are several implementations ([`CpuPath`]); all give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rounding;
mod scalar;

pub use element::Element;

use crate::kernels::CpuPath;
use crate::kernels::float8::E4M3_MAX;
use crate::named::named;

/// How a block's scale is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleFormat {
    /// A power of two, as `scale_fmt: "ue8m0"` promises.
    #[default]
    Ue8m0,
    /// Any f32.
    Float32,
}

named!(ScaleFormat {
    Ue8m0: "ue8m0",
    Float32: "float32" | "f32" | "fp32" | "float",
});

/// Rows and columns of a block.
pub const BLOCK: usize = 128;

/// A NaN or infinity at a row and column of the block row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NonFiniteAt {
    pub row: usize,
    pub column: usize,
    pub value: f32,
}

/// Quantizes a row of blocks: `source` is a matrix of little-endian `T` with `columns` columns and
/// at most 128 rows, `codes` a matrix of the same shape, and `scales` has an element for every 128
/// columns, the last of which may be cut off.
///
/// # Errors
/// The first NaN or infinity, in which case no code is written.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn quantize_block_row<T: Element>(
    source: &[u8],
    columns: usize,
    codes: &mut [u8],
    scales: &mut [f32],
    format: ScaleFormat,
    path: CpuPath,
) -> Result<(), NonFiniteAt> {
    assert!(CpuPath::available().contains(&path));
    assert_eq!(source.len(), codes.len() * T::BYTES);
    assert_eq!(scales.len(), columns.div_ceil(BLOCK));
    if codes.is_empty() {
        return Ok(());
    }
    assert!(codes.len().is_multiple_of(columns) && codes.len() / columns <= BLOCK);

    let mut amax = vec![0; scales.len()];
    match path {
        CpuPath::Scalar => scalar::amax_bits::<T>(source, columns, &mut amax),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2 and F16C, as `available` found.
        CpuPath::Avx2 => unsafe { avx2::amax_bits::<T>(source, columns, &mut amax) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512 F and BW, as `available` found.
        CpuPath::Avx512 => unsafe { avx512::amax_bits::<T>(source, columns, &mut amax) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the processor has NEON, as `available` found.
        CpuPath::Neon => unsafe { neon::amax_bits::<T>(source, columns, &mut amax) },
    }
    for (scale, bits) in scales.iter_mut().zip(amax) {
        let amax = T::from_magnitude_bits(bits);
        if !amax.is_finite() {
            return Err(first_non_finite::<T>(source, columns));
        }
        *scale = match format {
            ScaleFormat::Ue8m0 => power_of_two_scale(amax),
            ScaleFormat::Float32 => exact_scale(amax),
        };
    }
    match path {
        CpuPath::Scalar => scalar::encode::<T>(source, columns, codes, scales),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        CpuPath::Avx2 => unsafe { avx2::encode::<T>(source, columns, codes, scales) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        CpuPath::Avx512 => unsafe { avx512::encode::<T>(source, columns, codes, scales) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        CpuPath::Neon => unsafe { neon::encode::<T>(source, columns, codes, scales) },
    }
    Ok(())
}

/// Encodes `source` block by block: `block` makes what the elements of a block of this scale need, and
/// `encode_part` gives the codes of one row of a block, filled up with zeros. Inlined, so that both
/// are compiled for the processor of the caller.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn encode_blocks<T: Element, B>(
    source: &[u8],
    columns: usize,
    codes: &mut [u8],
    scales: &[f32],
    block: impl Fn(f32) -> B,
    encode_part: impl Fn(&[u8], &mut [u8], &B),
) {
    let blocks: Vec<B> = scales.iter().map(|&scale| block(scale)).collect();
    let rows = source.chunks_exact(columns * T::BYTES);
    for (row, codes) in rows.zip(codes.chunks_exact_mut(columns)) {
        let parts = row.chunks(BLOCK * T::BYTES).zip(codes.chunks_mut(BLOCK));
        for ((part, codes), block) in parts.zip(&blocks) {
            if codes.len() == BLOCK {
                encode_part(part, codes, block);
            } else {
                let mut all = [0; BLOCK];
                encode_part(&padded::<T>(part), &mut all, block);
                codes.copy_from_slice(&all[..codes.len()]);
            }
        }
    }
}

/// `part`, elements of a row, and zeros after it, as many as a block is wide.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn padded<T: Element>(part: &[u8]) -> Vec<u8> {
    let mut all = vec![0; BLOCK * T::BYTES];
    all[..part.len()].copy_from_slice(part);
    all
}

/// The first value in row order that is not finite; there is one.
fn first_non_finite<T: Element>(source: &[u8], columns: usize) -> NonFiniteAt {
    let mut values = source.chunks_exact(T::BYTES).map(T::read).enumerate();
    let (at, value) = values
        .find(|(_, value)| !value.is_finite())
        .expect("a block whose amax is not finite holds a value that is not finite");
    NonFiniteAt {
        row: at / columns,
        column: at % columns,
        value,
    }
}

/// The smallest normal f32, the lower bound of every scale.
const MIN_SCALE: f32 = f32::MIN_POSITIVE;

/// The smallest power of two `s ≥ 2⁻¹²⁶` with `amax / s ≤ 448`; 1 for `amax = 0`.
pub fn power_of_two_scale(amax: f32) -> f32 {
    const EXPONENT_OF_MAX: u32 = 8;
    const MANTISSA_OF_MAX: u32 = 0b11 << 21; // 448 = 1.75 · 2⁸
    if amax == 0.0 {
        return 1.0;
    }
    let bits = amax.to_bits();
    let exponent = bits >> 23;
    let round_up = u32::from(bits & 0x7f_ffff > MANTISSA_OF_MAX);
    let scale_exponent = (exponent + round_up).saturating_sub(EXPONENT_OF_MAX).max(1);
    f32::from_bits(scale_exponent << 23)
}

/// `f32(f64(amax) / 448)`, at least 2⁻¹²⁶; 1 for `amax = 0`.
pub fn exact_scale(amax: f32) -> f32 {
    if amax == 0.0 {
        return 1.0;
    }
    ((f64::from(amax) / f64::from(E4M3_MAX)) as f32).max(MIN_SCALE)
}

/// `1 / scale`, where multiplying by it gives exactly what dividing by `scale` gives: where
/// `scale` is a power of two (and at most 2¹²⁶, as every scale is).
fn exact_reciprocal(scale: f32) -> Option<f32> {
    const MANTISSA: u32 = 0x7f_ffff;
    (scale.to_bits() & MANTISSA == 0).then(|| scale.recip())
}

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
mod blocks;
mod element;
mod exact;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rounding;
mod scalar;
mod scales;

pub use blocks::BLOCK;
pub use element::Element;
pub use exact::first_inexact;
pub use scales::{ScaleFormat, exact_scale, nearest_scale, power_of_two_scale};

use crate::kernels::CpuPath;

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
    let scale = |amax| match format {
        ScaleFormat::Ue8m0 => power_of_two_scale(amax),
        ScaleFormat::Float32 => exact_scale(amax),
    };
    quantize_blocks::<T>(source, columns, codes, scales, scale, path)
}

/// The same with the scales that `scale` makes of the largest magnitude of each block.
pub fn quantize_blocks<T: Element>(
    source: &[u8],
    columns: usize,
    codes: &mut [u8],
    scales: &mut [f32],
    scale: impl Fn(f32) -> f32,
    path: CpuPath,
) -> Result<(), NonFiniteAt> {
    assert!(CpuPath::available().contains(&path));
    assert_eq!(source.len(), codes.len() * T::BYTES);
    assert_eq!(scales.len(), columns.div_ceil(BLOCK));
    if codes.is_empty() {
        return Ok(());
    }
    assert!(codes.len().is_multiple_of(columns) && codes.len() / columns <= BLOCK);

    let mut are_usual = true;
    let amax = amax_bits::<T>(source, columns, path);
    for (to, bits) in scales.iter_mut().zip(amax) {
        let amax = T::from_magnitude_bits(bits);
        if !amax.is_finite() {
            return Err(first_non_finite::<T>(source, columns));
        }
        *to = scale(amax);
        are_usual &= is_usual(*to, amax);
    }
    encode::<T>(source, columns, codes, scales, are_usual, path);
    Ok(())
}

/// Quantizes rows, each with one scale, that which `scale` makes of its largest magnitude: `source` is a matrix of
/// little-endian `T` with `columns` columns, `codes` one of the same shape, and `scales` has an
/// element for each row.
///
/// # Errors
/// The first NaN or infinity, in which case the codes of its row are not written.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn quantize_rows<T: Element>(
    source: &[u8],
    columns: usize,
    codes: &mut [u8],
    scales: &mut [f32],
    scale: impl Fn(f32) -> f32,
    path: CpuPath,
) -> Result<(), NonFiniteAt> {
    assert!(CpuPath::available().contains(&path));
    assert_eq!(source.len(), codes.len() * T::BYTES);
    assert_eq!(codes.len(), scales.len() * columns);
    if codes.is_empty() {
        return Ok(());
    }
    let mut of_blocks = vec![0.0; columns.div_ceil(BLOCK)];
    let rows = source.chunks_exact(columns * T::BYTES);
    let rows = rows.zip(codes.chunks_exact_mut(columns)).zip(scales);
    for (row, ((source, codes), to)) in rows.enumerate() {
        let amax = amax_bits::<T>(source, columns, path);
        let amax = T::from_magnitude_bits(amax.into_iter().fold(0, u32::max));
        if !amax.is_finite() {
            let at = first_non_finite::<T>(source, columns);
            return Err(NonFiniteAt { row, ..at });
        }
        *to = scale(amax);
        of_blocks.fill(*to);
        encode::<T>(
            source,
            columns,
            codes,
            &of_blocks,
            is_usual(*to, amax),
            path,
        );
    }
    Ok(())
}

/// Whether faster loops give the right codes with a scale, of a block whose largest magnitude is `amax`: no
/// quotient needs to be cut off at 448.
fn is_usual(scale: f32, amax: f32) -> bool {
    scale.is_normal() && amax <= 460.0 * scale
}

/// The largest magnitude of each block, as bits.
fn amax_bits<T: Element>(source: &[u8], columns: usize, path: CpuPath) -> Vec<u32> {
    let mut amax = vec![0; columns.div_ceil(BLOCK)];
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
    amax
}

/// Writes the codes of finite elements, with a scale for each block.
fn encode<T: Element>(
    source: &[u8],
    columns: usize,
    codes: &mut [u8],
    scales: &[f32],
    are_usual: bool,
    path: CpuPath,
) {
    match if are_usual { path } else { CpuPath::Scalar } {
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

//! The product of a few rows of the left factor with one panel of the right one, on every path the
//! same operations in the same order: for each element, over the rank from 0 up, `sum += l · r` in
//! f32, the product rounded before it is added.

use crate::kernels::low_rank::panel::PANEL;

/// Rows that are computed together.
pub(super) const ROWS: usize = 4;

/// Sums of a tile.
pub(super) type Tile = [[f32; PANEL]; ROWS];

/// A row of the left factor.
pub(super) type Row<'a> = &'a [[u8; 4]];

/// A row of a panel.
pub(super) type PanelRow = [[u8; 4]; PANEL];

#[inline(always)]
pub(super) fn scalar(left: [Row; ROWS], panel: &[PanelRow], tile: &mut Tile) {
    const WIDTH: usize = 8;
    for first in (0..PANEL).step_by(WIDTH) {
        let mut sums = [[0.0f32; WIDTH]; ROWS];
        for (k, right) in panel.iter().enumerate() {
            for (sums, left) in sums.iter_mut().zip(left) {
                let left = f32::from_le_bytes(left[k]);
                for (sum, right) in sums.iter_mut().zip(&right[first..first + WIDTH]) {
                    *sum += left * f32::from_le_bytes(*right);
                }
            }
        }
        for (tile, sums) in tile.iter_mut().zip(sums) {
            tile[first..first + WIDTH].copy_from_slice(&sums);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn avx2(left: [Row; ROWS], panel: &[PanelRow], tile: &mut Tile) {
    use std::arch::x86_64::*;
    const LANES: usize = 8;
    const VECTORS: usize = 2;
    for first in (0..PANEL).step_by(LANES * VECTORS) {
        let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
        for (k, right) in panel.iter().enumerate() {
            let right: [__m256; VECTORS] = std::array::from_fn(|v| {
                let lanes = &right[first + v * LANES..][..LANES];
                // SAFETY: there are 8 numbers of 4 bytes.
                unsafe { _mm256_loadu_ps(lanes.as_ptr().cast()) }
            });
            for (sums, left) in sums.iter_mut().zip(left) {
                let left = _mm256_set1_ps(f32::from_le_bytes(left[k]));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm256_add_ps(*sum, _mm256_mul_ps(left, right));
                }
            }
        }
        for (tile, sums) in tile.iter_mut().zip(sums) {
            for (v, sum) in sums.into_iter().enumerate() {
                let lanes = &mut tile[first + v * LANES..][..LANES];
                // SAFETY: there are 8 numbers of 4 bytes.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn avx512(left: [Row; ROWS], panel: &[PanelRow], tile: &mut Tile) {
    use std::arch::x86_64::*;
    const LANES: usize = 16;
    const VECTORS: usize = PANEL / LANES;
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for (k, right) in panel.iter().enumerate() {
        let right: [__m512; VECTORS] = std::array::from_fn(|v| {
            let lanes = &right[v * LANES..][..LANES];
            // SAFETY: there are 16 numbers of 4 bytes.
            unsafe { _mm512_loadu_ps(lanes.as_ptr().cast()) }
        });
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = _mm512_set1_ps(f32::from_le_bytes(left[k]));
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = _mm512_add_ps(*sum, _mm512_mul_ps(left, right));
            }
        }
    }
    for (tile, sums) in tile.iter_mut().zip(sums) {
        for (v, sum) in sums.into_iter().enumerate() {
            let lanes = &mut tile[v * LANES..][..LANES];
            // SAFETY: there are 16 numbers of 4 bytes.
            unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sum) };
        }
    }
}

//! Whether codes stand for exactly the numbers that they were made of.

use std::marker::PhantomData;

use super::blocks::BLOCK;
use super::element::Element;
#[cfg(target_arch = "x86_64")]
use crate::kernels::avx2;
use crate::kernels::cast::{E4m3, dequantize_row};
use crate::kernels::{CpuPath, Loop};

/// The row and column of the first element of a row of blocks that is not its code times the scale of its block.
/// Arguments are those of [`quantize_block_row`](super::quantize_block_row), after it wrote codes and scales, which are
/// powers of two.
///
/// The product is exact: it has the four significant bits of a code, and is 2⁻⁹ · 2⁻¹²⁶ or more, which f32 has.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn first_inexact<T: Element>(
    source: &[u8],
    columns: usize,
    codes: &[u8],
    scales: &[f32],
    path: CpuPath,
) -> Option<[usize; 2]> {
    assert_eq!(source.len(), codes.len() * T::BYTES);
    let mut products = vec![0; columns * 4];
    let rows = source.chunks_exact((columns * T::BYTES).max(1));
    for (row, (source, codes)) in rows.zip(codes.chunks_exact(columns.max(1))).enumerate() {
        #[cfg(target_arch = "x86_64")]
        if matches!(path, CpuPath::Avx2 | CpuPath::Avx512) {
            let comparison = Steps::<T> {
                source,
                codes,
                scales,
                element: PhantomData,
            };
            if CpuPath::Avx2.run(comparison) {
                continue;
            }
        }
        dequantize_row::<E4m3, f32>(codes, scales, BLOCK, &mut products, path);
        let comparison = Comparison::<T> {
            source,
            products: &products,
            element: PhantomData,
        };
        if path.run(comparison) {
            let products = products
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b));
            let mut pairs = source.chunks_exact(T::BYTES).map(T::read).zip(products);
            let column = pairs.position(|(number, product)| number != product);
            return column.map(|column| [row, column]);
        }
    }
    None
}

/// Whether the elements of a row are certainly their codes times their scales, told 32 at a time. Where it is not told, as of
/// a last part that is shorter, it is not certain.
#[cfg(target_arch = "x86_64")]
struct Steps<'a, T> {
    source: &'a [u8],
    codes: &'a [u8],
    scales: &'a [f32],
    element: PhantomData<T>,
}

#[cfg(target_arch = "x86_64")]
impl<T: Element> Loop for Steps<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let blocks = self.source.chunks(BLOCK * T::BYTES);
        let blocks = blocks.zip(self.codes.chunks(BLOCK)).zip(self.scales);
        let mut are_same = true;
        for ((source, codes), &scale) in blocks {
            let Some(factor) = avx2::e4m3_factor(scale) else {
                return false;
            };
            are_same &= codes.len().is_multiple_of(avx2::STEP);
            let sources = source.chunks_exact(avx2::STEP * T::BYTES);
            for (source, codes) in sources.zip(codes.chunks_exact(avx2::STEP)) {
                // SAFETY: the processor has AVX2 and F16C, as the path says.
                are_same &= unsafe { avx2::e4m3_products_are(T::PRECISION, source, codes, factor) };
            }
        }
        are_same
    }
}

/// Whether an element of a row is another number than its product, an f32.
struct Comparison<'a, T> {
    source: &'a [u8],
    products: &'a [u8],
    element: PhantomData<T>,
}

impl<T: Element> Loop for Comparison<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let numbers = self.source.chunks_exact(T::BYTES).map(T::read_finite);
        let products = self.products.as_chunks().0.iter();
        let pairs = numbers.zip(products.map(|bytes| f32::from_le_bytes(*bytes)));
        // Without an early end, compilers make vector code of it.
        pairs.fold(false, |differs, (number, product)| {
            differs | (number != product)
        })
    }
}

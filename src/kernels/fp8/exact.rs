//! Whether codes stand for exactly the numbers that they were made of.

use std::marker::PhantomData;

use super::blocks::BLOCK;
use super::element::Element;
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

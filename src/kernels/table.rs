//! Codes of 4 bits into a table, and integers of 8 bits with a scale of a row as bitsandbytes has them, as numbers.

use std::marker::PhantomData;

use half::{bf16, f16};

use crate::kernels::cast::{Target, product_bits};
use crate::kernels::lanes::Precision;
use crate::kernels::{CpuPath, Loop};

/// Which half of a byte has the first of its two codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Lower,
    Upper,
}

/// Codes of 4 bits, two in a byte, and the numbers that they stand for.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    pub packed: &'a [u8],
    pub first: First,
    pub table: &'a [f32; 16],
}

/// Writes the numbers `table[code] × scale` of `codes`. Every `block` of them share one of
/// `scales`; the last block may be cut off.
///
/// # Panics
/// If the lengths do not fit together, `block` is odd and not the only one, or this processor cannot run `path`.
pub fn dequantize_blocks(
    codes: Codes,
    scales: &[f32],
    block: usize,
    to: Precision,
    target: &mut [u8],
    path: CpuPath,
) {
    let Codes {
        packed,
        first,
        table,
    } = codes;
    let elements = target.len() / to.bytes();
    assert_eq!(packed.len(), elements.div_ceil(2));
    assert_eq!(scales.len(), elements.div_ceil(block));
    let shift = match first {
        First::Lower => [0, 4],
        First::Upper => [4, 0],
    };
    match to {
        Precision::Bf16 => path.run(Blocks::<bf16, 2> {
            packed,
            shift,
            table,
            scales,
            block,
            target,
            types: PhantomData,
        }),
        Precision::F16 => path.run(Blocks::<f16, 2> {
            packed,
            shift,
            table,
            scales,
            block,
            target,
            types: PhantomData,
        }),
        Precision::F32 => path.run(Blocks::<f32, 4> {
            packed,
            shift,
            table,
            scales,
            block,
            target,
            types: PhantomData,
        }),
    }
}

/// Writes the numbers `code × scale × (1 / 127)` of one row, each product rounded to f32.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn int8_row(codes: &[u8], scale: f32, to: Precision, target: &mut [u8], path: CpuPath) {
    assert_eq!(target.len(), codes.len() * to.bytes());
    match to {
        Precision::Bf16 => path.run(Int8Row::<bf16>::new(codes, scale, target)),
        Precision::F16 => path.run(Int8Row::<f16>::new(codes, scale, target)),
        Precision::F32 => path.run(Int8Row::<f32>::new(codes, scale, target)),
    }
}

struct Blocks<'a, T, const BYTES: usize> {
    packed: &'a [u8],
    /// Where the first and the second code of a byte begin.
    shift: [u32; 2],
    table: &'a [f32; 16],
    scales: &'a [f32],
    block: usize,
    target: &'a mut [u8],
    types: PhantomData<T>,
}

impl<T: Target, const BYTES: usize> Loop for Blocks<'_, T, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let targets = self.target.chunks_mut(self.block * BYTES);
        let blocks = self.packed.chunks(self.block.div_ceil(2)).zip(self.scales);
        for ((packed, &scale), target) in blocks.zip(targets) {
            let number_of = |codes: u8, at: usize| usize::from(codes >> self.shift[at] & 0xf);
            // A block has at least as many elements as there are codes.
            let mut numbers = [[0; BYTES]; 16];
            for (number, &value) in numbers.iter_mut().zip(self.table) {
                T::write(product_bits(value, scale), number);
            }
            let (pairs, last) = target.as_chunks_mut::<BYTES>().0.as_chunks_mut::<2>();
            for (pair, &codes) in pairs.iter_mut().zip(packed) {
                *pair = [numbers[number_of(codes, 0)], numbers[number_of(codes, 1)]];
            }
            if let ([last], Some(&codes)) = (last, packed.last()) {
                *last = numbers[number_of(codes, 0)];
            }
        }
    }
}

struct Int8Row<'a, T> {
    codes: &'a [u8],
    scale: f32,
    target: &'a mut [u8],
    types: PhantomData<T>,
}

impl<'a, T> Int8Row<'a, T> {
    fn new(codes: &'a [u8], scale: f32, target: &'a mut [u8]) -> Self {
        Int8Row {
            codes,
            scale,
            target,
            types: PhantomData,
        }
    }
}

impl<T: Target> Loop for Int8Row<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let targets = self.target.chunks_exact_mut(T::BYTES);
        for (&code, target) in self.codes.iter().zip(targets) {
            let product = f32::from(code as i8) * self.scale;
            T::write(product_bits(product, 1.0 / 127.0), target);
        }
    }
}

//! Unsigned codes with a zero point, as AWQ and GPTQ have them: `(code − zero point) × scale`, a zero point and a
//! scale for each group of columns of a row.
//!
//! The difference is exact, and the product is rounded to f32 and from there to the target.

use std::marker::PhantomData;

use crate::kernels::cast::{Target, product_bits};
use crate::kernels::{CpuPath, Loop};

/// Writes the codes of `bits` bits (2, 3, 4 or 8) that `packed` holds, one after the other from the lowest bit of
/// its first byte on.
///
/// # Panics
/// If `codes` has another number of elements, `bits` is another number, or this processor cannot run `path`.
pub fn unpack_bits(packed: &[u8], bits: u32, codes: &mut [u8], path: CpuPath) {
    assert_eq!(codes.len() * bits as usize, packed.len() * 8);
    match bits {
        2 => path.run(Bits::<2, 1, 4> { packed, codes }),
        3 => path.run(Bits::<3, 3, 8> { packed, codes }),
        4 => path.run(Bits::<4, 1, 2> { packed, codes }),
        8 => codes.copy_from_slice(packed),
        _ => unreachable!("codes have 2, 3, 4 or 8 bits"),
    }
}

/// Writes, for each little-endian word of 32 bits, the four bits from bit `4 · place` on.
///
/// # Panics
/// If `codes` does not have an element for each word, `place` is 8 or more, or this processor cannot run `path`.
pub fn unpack_place(words: &[u8], place: u32, codes: &mut [u8], path: CpuPath) {
    assert_eq!(words.len(), codes.len() * 4);
    assert!(place < 8);
    path.run(Place {
        words,
        shift: 4 * place,
        codes,
    });
}

/// Writes `(code − zero point) × scale` of one row: a zero point and a scale for every `group` codes, the last of
/// which may be cut off.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn dequantize_groups<T: Target>(
    codes: &[u8],
    zero_points: &[f32],
    scales: &[f32],
    group: usize,
    target: &mut [u8],
    path: CpuPath,
) {
    assert_eq!(target.len(), codes.len() * T::BYTES);
    assert_eq!(scales.len(), codes.len().div_ceil(group));
    assert_eq!(scales.len(), zero_points.len());
    path.run(Groups::<T> {
        codes,
        zero_points,
        scales,
        group,
        target,
        types: PhantomData,
    });
}

/// The same where `group_of` has the group of each code.
///
/// # Panics
/// If the lengths do not fit together, a group does not exist, or this processor cannot run `path`.
pub fn dequantize_indexed<T: Target>(
    codes: &[u8],
    group_of: &[u32],
    zero_points: &[f32],
    scales: &[f32],
    target: &mut [u8],
    path: CpuPath,
) {
    assert_eq!(target.len(), codes.len() * T::BYTES);
    assert_eq!(group_of.len(), codes.len());
    assert_eq!(scales.len(), zero_points.len());
    path.run(Indexed::<T> {
        codes,
        group_of,
        zero_points,
        scales,
        target,
        types: PhantomData,
    });
}

/// `CODES` codes of `BITS` bits in `BYTES` bytes.
struct Bits<'a, const BITS: usize, const BYTES: usize, const CODES: usize> {
    packed: &'a [u8],
    codes: &'a mut [u8],
}

impl<const BITS: usize, const BYTES: usize, const CODES: usize> Loop
    for Bits<'_, BITS, BYTES, CODES>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let codes = self.codes.as_chunks_mut::<CODES>().0;
        for (codes, packed) in codes.iter_mut().zip(self.packed.as_chunks::<BYTES>().0) {
            let mut bits = 0u32;
            for (i, byte) in packed.iter().enumerate() {
                bits |= u32::from(*byte) << (8 * i);
            }
            for (i, code) in codes.iter_mut().enumerate() {
                *code = (bits >> (BITS * i)) as u8 & ((1 << BITS) - 1);
            }
        }
    }
}

struct Place<'a> {
    words: &'a [u8],
    shift: u32,
    codes: &'a mut [u8],
}

impl Loop for Place<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let words = self.words.as_chunks::<4>().0;
        for (code, word) in self.codes.iter_mut().zip(words) {
            *code = (u32::from_le_bytes(*word) >> self.shift) as u8 & 0xf;
        }
    }
}

struct Groups<'a, T> {
    codes: &'a [u8],
    zero_points: &'a [f32],
    scales: &'a [f32],
    group: usize,
    target: &'a mut [u8],
    types: PhantomData<T>,
}

impl<T: Target> Loop for Groups<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let targets = self.target.chunks_mut(self.group * T::BYTES);
        let groups = self.codes.chunks(self.group).zip(targets);
        let of_group = self.zero_points.iter().zip(self.scales);
        for ((codes, target), (&zero, &scale)) in groups.zip(of_group) {
            for (&code, target) in codes.iter().zip(target.chunks_exact_mut(T::BYTES)) {
                T::write(product_bits(f32::from(code) - zero, scale), target);
            }
        }
    }
}

struct Indexed<'a, T> {
    codes: &'a [u8],
    group_of: &'a [u32],
    zero_points: &'a [f32],
    scales: &'a [f32],
    target: &'a mut [u8],
    types: PhantomData<T>,
}

impl<T: Target> Loop for Indexed<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let codes = self.codes.iter().zip(self.group_of);
        for ((&code, &group), target) in codes.zip(self.target.chunks_exact_mut(T::BYTES)) {
            let (zero, scale) = (
                self.zero_points[group as usize],
                self.scales[group as usize],
            );
            T::write(product_bits(f32::from(code) - zero, scale), target);
        }
    }
}

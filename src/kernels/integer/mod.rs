//! Quantization to integers of 8 and 4 bits, with a scale for each group of columns of a row.
//!
//! With `amax`, `min` and `max` the largest magnitude, the smallest and the largest of the numbers of a
//! group and zero, every division in f32:
//!
//! | codes | scale `s` | zero point `z` | code of `x` |
//! |---|---|---|---|
//! | 8 bits | `amax / 127.5` | 0 | `x / s`, rounded, in −128 to 127 |
//! | 4 bits | `amax / 7.5` | 0 | `x / s`, rounded, in −8 to 7 |
//! | 4 bits, asymmetric | `(max − min) / 15` | `−8 − min / s`, rounded, in −8 to 7 | `x / s + z`, rounded, in −8 to 7 |
//!
//! Scales are rounded to the type of the elements before they are used; one that is zero becomes the
//! distance from 1 to the next number of that type, with `z = 0`. Codes and zero points are rounded to the
//! nearest integer, ties to even. That is what `calculate_qparams` and `quantize` of compressed-tensors
//! compute of numbers in f32 (0.17).
//!
//! The loops are plain Rust for compilers to vectorize, compiled once for each [`CpuPath`]: all give
//! the same bits.

mod affine;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod loops;

pub use affine::{dequantize_groups, dequantize_indexed, unpack_bits, unpack_place};
pub use loops::{Int4, Int4Asymmetric, Int8, Integer, unpack};

use std::marker::PhantomData;

use crate::kernels::CpuPath;
use crate::kernels::fp8::{Element, NonFiniteAt};
use loops::{Plain, Rows};

/// Quantizes rows: `source` is a matrix of little-endian `T` with `columns` columns. `codes` takes the codes,
/// as [`Integer::BITS`] says, row after row; `scales` and `zero_points` an element for every group of
/// `group` columns of each row.
///
/// # Errors
/// The first NaN or infinity, in which case no code has a meaning; with zero points also where the numbers
/// of a group are farther from each other than the largest f32.
///
/// # Panics
/// If the lengths do not fit together, columns are not whole groups, or this processor cannot run `path`.
pub fn quantize_rows<T: Element, C: Integer>(
    source: &[u8],
    columns: usize,
    group: usize,
    codes: &mut [u8],
    scales: &mut [f32],
    zero_points: &mut [i8],
    path: CpuPath,
) -> Result<(), NonFiniteAt> {
    if source.is_empty() {
        return Ok(());
    }
    let elements = source.len() / T::BYTES;
    assert!(columns.is_multiple_of(group) && elements.is_multiple_of(columns));
    assert_eq!(codes.len() * 8, elements * C::BITS);
    assert_eq!(scales.len(), elements / group);
    assert_eq!(zero_points.len(), scales.len());
    let rows = Rows::<T, C, Plain> {
        source,
        group,
        codes,
        scales,
        zero_points,
        types: PhantomData,
    };
    let are_finite = match path {
        // Compilers make slower code of 512 bits.
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 | CpuPath::Avx512 => CpuPath::Avx2.run(rows.by::<avx2::Avx2>()),
        _ => path.run(rows),
    };
    if are_finite {
        return Ok(());
    }
    let values = source.chunks_exact(T::BYTES).map(T::read).enumerate();
    let found = values.clone().find(|(_, value)| !value.is_finite());
    // Else two finite numbers are farther from each other than the largest number.
    let of_magnitude = |(_, a): &(usize, f32), (_, b): &(usize, f32)| a.abs().total_cmp(&b.abs());
    let found = found.or_else(|| values.max_by(of_magnitude));
    let (at, value) = found.expect("there are elements");
    Err(NonFiniteAt {
        row: at / columns,
        column: at % columns,
        value,
    })
}

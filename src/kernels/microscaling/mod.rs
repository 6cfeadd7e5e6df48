//! Codes of 4 or 8 bits that are floating-point numbers, with a scale of 8 bits for a few columns of a row:
//! MXFP4 and MXFP8, by the OCP microscaling specification, and NVFP4.
//!
//! A group of `K` columns has one scale, of which a byte is stored, and each element `x` of it the code of
//! `x / s`, with `s` the number by which codes are to be multiplied. With `amax` the largest magnitude of
//! the group, every operation one of f32 unless it says otherwise, and `e4m3` and `e2m1` the nearest code,
//! ties to even, at most the largest:
//!
//! | format | K | byte of the scale | s | code |
//! |---|---|---|---|---|
//! | [`Mxfp4`] | 32 | `⌊log₂ amax⌋ − 2`, one more from 1.75 · 2ⁿ on, plus 127 | 2^(byte − 127) | `e2m1` |
//! | [`Mxfp4Modelopt`] | 32 | `⌈log₂(amax / 6)⌉` plus 127 | the same | `e2m1`, ties toward zero |
//! | [`Mxfp4Triton`] | 32 | the same, without rounding of the logarithm | the same | `e2m1`, ties away from zero |
//! | [`Mxfp8`] | 32 | `⌊log₂ amax⌋ − 8`, one more from 1.75 · 2ⁿ on, plus 127 | the same | `e4m3` |
//! | [`Mxfp8Modelopt`] | 32 | `⌈log₂(amax / 448)⌉` plus 127 | the same | `e4m3` |
//! | [`Nvfp4`] | 16 | `e4m3(G · (amax / 6))`, 0.125 for 0 | byte / G | `e2m1` |
//! | [`Nvfp4Modelopt`] | 16 | `e4m3(amax / (6 · g))`, at least 2⁻⁹, 1 for `amax = 0` | byte · g | `e2m1` |
//!
//! `G` and `g` follow from the largest magnitude of all that shares one: [`Nvfp4::global`].

#[cfg(target_arch = "x86_64")]
mod avx2;
mod decode;
mod formats;
mod groups;
mod loops;

use std::marker::PhantomData;

use crate::kernels::CpuPath;
use crate::kernels::fp8::{Element, NonFiniteAt};
pub use decode::dequantize_e2m1_row;
pub use formats::{
    Codes, Format, Mxfp4, Mxfp4Modelopt, Mxfp4Triton, Mxfp8, Mxfp8Modelopt, Nvfp4, Nvfp4Modelopt,
    Sign,
};
use groups::{Groups, Plain};
use loops::{Rows, is_finite};

/// Quantizes rows of whole groups: `source` has little-endian elements `T`, `columns` in a row, `codes` takes [`Format::BITS`]
/// for each of them and `scales` a byte for each group. `global` is what [`Format::global`] gives.
///
/// # Errors
/// The first NaN or infinity, in which case no code has a meaning.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn quantize_rows<T: Element, F: Format>(
    source: &[u8],
    columns: usize,
    global: f32,
    codes: &mut [u8],
    scales: &mut [u8],
    path: CpuPath,
) -> Result<(), NonFiniteAt> {
    let elements = source.len() / T::BYTES;
    assert!(elements.is_multiple_of(F::GROUP) && source.len().is_multiple_of(T::BYTES));
    assert_eq!(codes.len() * 8, elements * F::BITS);
    assert_eq!(scales.len() * F::GROUP, elements);
    let are_finite = match path {
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 | CpuPath::Avx512 => {
            run::<T, F, avx2::Avx2>(source, global, codes, scales, CpuPath::Avx2)
        }
        _ => run::<T, F, Plain>(source, global, codes, scales, path),
    };
    if are_finite {
        return Ok(());
    }
    let mut values = source.chunks_exact(T::BYTES).map(T::read).enumerate();
    let found = values.find(|(_, value)| !value.is_finite());
    let (at, value) = found.expect("a group that is not finite has such an element");
    Err(NonFiniteAt {
        row: at / columns,
        column: at % columns,
        value,
    })
}

fn run<T: Element, F: Format, G: Groups>(
    source: &[u8],
    global: f32,
    codes: &mut [u8],
    scales: &mut [u8],
    path: CpuPath,
) -> bool {
    path.run(Rows::<T, F, G> {
        source,
        global,
        codes,
        scales,
        types: PhantomData,
    })
}

/// The largest magnitude of `source`, elements `T`.
///
/// # Errors
/// The position of the first NaN or infinity, and its value.
pub fn amax<T: Element>(source: &[u8], path: CpuPath) -> Result<f32, (usize, f32)> {
    let amax = path.run(loops::Amax::<T> {
        source,
        element: PhantomData,
    });
    if is_finite(amax) {
        return Ok(amax);
    }
    let mut values = source.chunks_exact(T::BYTES).map(T::read).enumerate();
    let found = values.find(|(_, value)| !value.is_finite());
    Err(found.expect("the largest magnitude is that of an element"))
}

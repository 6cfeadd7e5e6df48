//! The types of GGUF: rows of f32 to blocks and back.
//!
//! Blocks are bit for bit those that llama.cpp makes on x86-64 (`ggml-quants.c`): all arithmetic is
//! f32, each operation rounded, in the order of that source; nothing is fused. There are several
//! implementations ([`CpuPath`]); all do these operations in this order, and so give the same bits.
//!
//! A row is a row of a matrix, whose length is a multiple of the block's. No row depends on another.

mod decode;
mod each;
mod encode;
mod pack;
mod search;
mod types;
mod vector;

pub use encode::{Unencodable, WEIGHT_LIMIT};
pub use types::Type;

#[cfg(target_arch = "x86_64")]
use crate::kernels::cpu::run_on_avx2;
use crate::kernels::{CpuPath, Loop};
use decode::Decoding;
#[cfg(target_arch = "x86_64")]
use vector::F32x8;
use vector::Plain;

/// Writes `row` as blocks of `kind`: `kind.row_bytes(row.len())` bytes.
///
/// `weights` (of an importance matrix) has one number for each column, from zero to below
/// [`WEIGHT_LIMIT`]. Without it, types make weights of the row. F32, F16, BF16,
/// Q8_0 and MXFP4 ignore it.
///
/// # Errors
/// What a quantized type cannot hold; `blocks` is then unspecified. F32, F16 and BF16 take any
/// value: to nearest, ties to even, infinity beyond the largest.
///
/// # Panics
/// If `kind` is not [encodable](Type::is_encodable), the lengths do not fit together, or this
/// processor cannot run `path`.
pub fn encode_row(
    kind: Type,
    row: &[f32],
    weights: Option<&[f32]>,
    blocks: &mut [u8],
    path: CpuPath,
) -> Result<(), Unencodable> {
    assert_eq!(Some(blocks.len()), kind.row_bytes(row.len()));
    assert!(weights.is_none_or(|weights| weights.len() == row.len()));
    encode::encode(kind, row, weights, blocks, path)
}

/// Writes the values of `blocks`, a row of `kind`, to `row`. Any bytes are blocks: scales may be
/// NaN or infinite, and so are the values then.
///
/// # Panics
/// If the lengths do not fit together, or this processor cannot run `path`.
pub fn decode_row(kind: Type, blocks: &[u8], row: &mut [f32], path: CpuPath) {
    assert_eq!(Some(blocks.len()), kind.row_bytes(row.len()));
    assert!(CpuPath::available().contains(&path));
    match path {
        CpuPath::Scalar => Decoding::<Plain>::new(kind, blocks, row).run(),
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 => run_on_avx2(Decoding::<F32x8>::new(kind, blocks, row)),
        // Of these loops compilers make better code for AVX2, which every such processor has.
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx512 => run_on_avx2(Decoding::<F32x8>::new(kind, blocks, row)),
        #[cfg(target_arch = "aarch64")]
        CpuPath::Neon => Decoding::<Plain>::new(kind, blocks, row).run(),
    }
}

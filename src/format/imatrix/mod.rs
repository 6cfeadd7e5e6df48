//! Importance matrices of llama.cpp: how much each column of a matrix counts when it is quantized.
//!
//! | form | content |
//! |---|---|
//! | GGUF | of each matrix the F32 tensors `NAME.in_sum2`, a sum of squares for each column of each expert, and `NAME.counts`, how many were added up, for each expert; the keys `imatrix.datasets`, `.chunk_count` and `.chunk_size` |
//! | older (`.dat`), little-endian | i32 number of matrices; each: i32 length and bytes of the name, i32 number of calls, i32 number of columns of all experts, f32 sum over calls of means; then, if there is more: i32 number of chunks, i32 length and bytes of the name of the data |
//!
//! Source: `tools/imatrix` and `common/imatrix-loader.cpp` of llama.cpp b11434.

mod gguf;
mod matrix;
mod older;

use std::sync::Arc;

use crate::error::Result;
use crate::format::gguf::MAGIC;
use crate::source::{Blob, pointer};

pub use matrix::{Columns, Imatrix};

/// Reads what `file` says of its matrices.
///
/// # Errors
/// If it is no importance matrix, or lacks something that llama.cpp needs.
pub fn read(file: Arc<dyn Blob>) -> Result<Imatrix> {
    if let Some(pointer) = pointer(&*file) {
        return Err(pointer.error(file.location()));
    }
    let mut first = [0; MAGIC.len()];
    if file.len() < first.len() as u64 {
        return Err(matrix::bad(&*file, "it has no matrices"));
    }
    file.read_at(&mut first, 0)?;
    match first == *MAGIC {
        true => gguf::read(file),
        false => older::read(file),
    }
}

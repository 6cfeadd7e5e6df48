//! What both forms say.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::{Code, Error};
use crate::format::{Container, Shard, StoredTensor};
use crate::source::Blob;
use crate::tensor::Name;

/// An importance matrix, of which only the numbers that are divided by were read.
#[derive(Debug)]
pub struct Imatrix {
    /// The file, with the sums as its tensors.
    pub shard: Arc<Shard>,
    /// By the names that matrices have in GGUF.
    pub matrices: IndexMap<Name, Columns>,
    /// What the matrix was computed on, as the file says.
    pub dataset: Option<String>,
    /// How many pieces of text that was, if it says so.
    pub chunks: Option<u32>,
}

/// The columns of a matrix, or those of each expert, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// The tensor of the shard that has their sums, one F32 for each.
    pub sums: Name,
    /// What sums are divided by, one number for each of as many equal parts of them; 0 where nothing was
    /// counted: all columns then count the same, 1.
    pub counts: Arc<[f32]>,
}

pub(super) fn bad(file: &dyn Blob, problem: impl AsRef<str>) -> Error {
    let problem = format!(
        "this importance matrix cannot be used: {}",
        problem.as_ref()
    );
    Error::of_file(Code::BadImatrix, file.location(), problem)
}

/// The file as a shard that has `tensors`, in the order of their offsets.
pub(super) fn shard(file: Arc<dyn Blob>, tensors: IndexMap<Name, StoredTensor>) -> Arc<Shard> {
    let path = file.location().clone();
    let name = path.file_name().unwrap_or_default();
    Arc::new(Shard {
        name: name.to_string_lossy().into_owned(),
        checkpoint: path.clone(),
        container: Container::Gguf,
        blob: file,
        tensors,
    })
}

//! A planned view: its files, and the tensors in each shard.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::{Extents, Report, Sources, Tensor};
use crate::tensor::{Dtype, Name, Shape};
use crate::view::{EntryId, View};

/// A view that is ready to be read, and what there is to say about it.
#[derive(Debug)]
pub struct Plan {
    pub view: Arc<View>,
    /// The view's files that hold tensors, in shard order.
    pub shards: Vec<PlannedShard>,
    /// The index of the shards, unless there is a single file without one.
    pub index: Option<EntryId>,
    /// Which tensors are where in the source files.
    pub sources: Sources,
    pub report: Report,
}

/// A file of a view that holds tensors.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedShard {
    pub name: String,
    /// The file in the view.
    #[serde(skip)]
    pub entry: EntryId,
    /// Length of the file in bytes.
    pub len: u64,
    /// The source file that this shard is, byte for byte, if it is one.
    pub whole_file: Option<PathBuf>,
    /// In offset order.
    pub tensors: Vec<PlannedTensor>,
}

/// A tensor of a view.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedTensor {
    pub name: Name,
    pub dtype: Dtype,
    pub shape: Shape,
    /// Offset of its first byte from the start of the shard.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// The source file that its bytes, or the first of them, lie in or are computed from.
    pub from: Arc<Path>,
    /// Whether the bytes are computed.
    pub computed: bool,
    /// Where its bytes come from.
    #[serde(skip)]
    pub extents: Extents,
}

impl PlannedTensor {
    /// The tensor apart from its place in a shard.
    pub fn tensor(&self) -> Tensor {
        Tensor {
            dtype: self.dtype,
            shape: self.shape.clone(),
            extents: self.extents.clone(),
            home: None,
        }
    }
}

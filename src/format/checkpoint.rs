//! A checkpoint as its container's reader gives it: tables of tensors, and everything else.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::source::{Attributes, AuxEntry, Blob};
use crate::tensor::{Dtype, Name, Shape};

/// A kind of files that hold tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Safetensors shards with an index, or one file without, in Hugging Face layout.
    Safetensors,
}

/// A checkpoint whose index and headers were read and found to agree. No tensor byte was read.
#[derive(Debug)]
pub struct Checkpoint {
    pub directory: PathBuf,
    pub attributes: Attributes,
    /// In the order in which the index first names them (name order without an index).
    pub shards: Vec<Arc<Shard>>,
    /// Every tensor and the position of its shard in `shards`, in the order of the index (offset
    /// order within each shard without one).
    pub tensors: IndexMap<Name, usize>,
    /// Everything that is not a weight, in name order.
    pub aux: Vec<AuxEntry>,
    /// What the directory holds but the checkpoint does not, each with its reason.
    pub left_out: Vec<String>,
}

/// A file of a checkpoint that holds tensors, and the table of them.
#[derive(Debug)]
pub struct Shard {
    pub name: String,
    pub container: Container,
    pub blob: Arc<dyn Blob>,
    /// All that it holds, in offset order, whether or not an index names it too.
    pub tensors: IndexMap<Name, StoredTensor>,
}

/// A tensor of a [`Shard`]: one range of its blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    pub dtype: Dtype,
    pub shape: Shape,
    /// Offset of the first byte from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Checkpoint {
    /// The tensor called `name`, as its shard describes it.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.shards[*self.tensors.get(name)?].tensors.get(name)
    }

    /// The bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        let tensors = self.tensors.keys().filter_map(|name| self.tensor(name));
        tensors.fold(0, |sum, tensor| sum.saturating_add(tensor.len))
    }
}

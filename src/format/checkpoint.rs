//! A checkpoint as its container's reader gives it: tables of tensors, and everything else.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

use crate::error::Hint;
use crate::error::setting::PATCH;
use crate::format::gguf::Model;
use crate::source::{Attributes, AuxEntry, Blob};
use crate::tensor::{Dtype, Name, Shape};

/// A kind of files that hold tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Safetensors shards with an index, or one file without, in Hugging Face layout.
    Safetensors,
    /// GGUF: one file, or split files.
    Gguf,
}

/// A checkpoint whose index and headers were read and found to agree. No tensor byte was read.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its directory, or the file that is all of it.
    pub path: PathBuf,
    pub attributes: Attributes,
    /// In the order in which the index first names them (name order without an index).
    pub shards: Vec<Arc<Shard>>,
    /// Every tensor and the position of its shard in `shards`, in the order of the index (offset
    /// order within each shard without one).
    pub tensors: IndexMap<Name, usize>,
    /// Everything that is not a weight, in name order.
    pub aux: Vec<AuxEntry>,
    /// What the directory holds but the checkpoint does not, each with its reason.
    pub left_out: Vec<LeftOut>,
    /// What GGUF files say of it, if it is of such: names, values and types are theirs.
    pub gguf: Option<Arc<Model>>,
}

/// Something in the directory of a checkpoint that does not belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// What it is, and the reason.
    pub what: String,
    /// The file, if a view could have the tensors in it by naming it.
    pub file: Option<PathBuf>,
}

impl LeftOut {
    /// What would bring it into the view.
    pub fn hint(&self) -> Option<Hint> {
        let file = self.file.as_ref()?.display().to_string();
        Some(Hint::give_value(PATCH, file).to("add the tensors that the view lacks"))
    }
}

impl From<String> for LeftOut {
    fn from(what: String) -> Self {
        LeftOut { what, file: None }
    }
}

/// For lists of them to be joined.
impl Borrow<str> for LeftOut {
    fn borrow(&self) -> &str {
        &self.what
    }
}

impl Serialize for LeftOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.what)
    }
}

/// A file of a checkpoint that holds tensors, and the table of them.
#[derive(Debug)]
pub struct Shard {
    pub name: String,
    /// The source that it is of, as reports name it: the directory that `name` is in, or the file
    /// itself, where that was named alone.
    pub checkpoint: Arc<Path>,
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

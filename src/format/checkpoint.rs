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
use crate::tensor::{Dtype, Name, Shape, elements_spanned};

/// A kind of files that hold tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// Safetensors shards with an index, or one file without, in Hugging Face layout.
    Safetensors,
    /// The same of files of `torch.save`.
    Torch,
    /// GGUF: one file, or split files.
    Gguf,
    /// `.metadata` and `.distcp` files of torch.distributed.checkpoint.
    Distcp,
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
    /// What was made of names and tensors while they were read.
    pub notes: Vec<String>,
    /// What GGUF files say of it, if it is of such: names, values and types are theirs.
    pub gguf: Option<Arc<Model>>,
    /// What a training program has saved, if it is of such: tensors in pieces, under the program's own names, and
    /// none in `tensors`.
    pub training: Option<Training>,
}

/// What a training program has saved.
#[derive(Debug)]
pub struct Training {
    /// Those of the model.
    pub tensors: IndexMap<Name, Pieced>,
}

/// A tensor in pieces, which cover it.
#[derive(Debug, Clone)]
pub struct Pieced {
    pub dtype: Dtype,
    pub shape: Shape,
    /// Whether the pieces are ranges of all elements in order, as if it had a single dimension.
    pub is_flat: bool,
    pub pieces: Vec<Piece>,
}

/// A part of a tensor: a box, or a range.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The position of its file in [`Checkpoint::shards`].
    pub shard: usize,
    /// Where it begins in the tensor, for each dimension.
    pub offsets: Arc<[u64]>,
    /// Its elements in the file; the shape is that of the piece.
    pub stored: StoredTensor,
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
    /// All that it holds, in offset order, whether or not an index names it too. Only in containers
    /// [whose tensors share bytes](Container::shares_bytes) they overlap.
    pub tensors: IndexMap<Name, StoredTensor>,
}

/// A tensor of a [`Shard`]: one range of its blob, or elements in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    pub dtype: Dtype,
    pub shape: Shape,
    /// Offset of the first element from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where the elements are not stored one after the other in row-major order: how many elements it is from one
    /// index of each dimension to the next. An element then takes whole bytes.
    pub strides: Option<Arc<[u64]>>,
}

impl StoredTensor {
    /// A range of bytes.
    pub fn contiguous(dtype: Dtype, shape: impl Into<Shape>, offset: u64, len: u64) -> Self {
        StoredTensor {
            dtype,
            shape: shape.into(),
            offset,
            len,
            strides: None,
        }
    }

    /// From the first byte of its elements to the last, how many there are in the file.
    pub fn span(&self) -> u64 {
        match &self.strides {
            None => self.len,
            Some(strides) => {
                let elements = elements_spanned(&self.shape, strides);
                let elements = elements.expect("they were found to be inside of the file");
                elements * (self.dtype.bitsize() as u64 / 8)
            }
        }
    }

    /// Where the element at `row` and `column` of a matrix begins in the bytes of its [span](Self::span).
    pub(crate) fn place(&self, row: u64, column: u64) -> usize {
        let [row_stride, column_stride] = match &self.strides {
            None => [self.shape[1], 1],
            Some(strides) => [strides[0], strides[1]],
        };
        let element = row * row_stride + column * column_stride;
        element as usize * (self.dtype.bitsize() / 8)
    }
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

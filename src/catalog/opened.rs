//! A checkpoint as views take it: tensors in the names and the layout of Hugging Face, whatever container
//! they are stored in.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::format::{Checkpoint, LeftOut, Shard};
use crate::source::{Attributes, AuxEntry};
use crate::tensor::Name;

/// A checkpoint that was opened. No tensor byte was read.
#[derive(Debug)]
pub struct Opened {
    /// Its directory, or the file that is all of it.
    pub path: PathBuf,
    pub attributes: Attributes,
    pub shards: Vec<Arc<Shard>>,
    /// Stored in `shards`, or computed from what is.
    pub tensors: IndexMap<Name, Tensor>,
    /// Bytes that the tensors take in `shards`.
    pub bytes: u64,
    pub aux: Vec<AuxEntry>,
    pub left_out: Vec<LeftOut>,
    /// What was made of names and tensors while they were read.
    pub notes: Vec<String>,
}

impl Opened {
    /// `checkpoint`, whose tensors are as they are stored.
    pub fn stored(checkpoint: Checkpoint) -> Self {
        let bytes = checkpoint.tensor_bytes();
        let shards = &checkpoint.shards;
        let stored = checkpoint.tensors.iter();
        let stored = stored.map(|(name, &home)| Tensor::stored(name, &shards[home], Some(home)));
        Opened {
            tensors: stored.collect(),
            bytes,
            path: checkpoint.path,
            attributes: checkpoint.attributes,
            aux: checkpoint.aux,
            left_out: checkpoint.left_out,
            notes: checkpoint.notes,
            shards: checkpoint.shards,
        }
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Its shards, if a view can keep their partition: tensors are there under the names that views have.
    pub(super) fn homes(&self) -> Vec<Arc<Shard>> {
        let mut tensors = self.tensors.values();
        match self.tensors.is_empty() || tensors.any(|tensor| tensor.home.is_some()) {
            true => self.shards.clone(),
            false => Vec::new(),
        }
    }
}

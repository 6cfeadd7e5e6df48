//! A checkpoint as views take it: tensors in the names and the layout of Hugging Face, whatever container
//! they are stored in.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::format::{Checkpoint, LeftOut, OUTPUT, Shard};
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
            shards: checkpoint.shards,
        }
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Its shards, if a view can keep them: tensors are stored there, in the container of views.
    pub(super) fn homes(&self) -> Vec<Arc<Shard>> {
        let is_output = |shard: &Arc<Shard>| shard.container == OUTPUT.container();
        match self.shards.iter().all(is_output) {
            true => self.shards.clone(),
            false => Vec::new(),
        }
    }
}

//! A safetensors file of the directory that is checked.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::format::StoredTensor;
use crate::quant::StoredFile;
use crate::source::Blob;
use crate::tensor::Name;

/// A safetensors file and its header.
#[derive(Debug)]
pub(super) struct ShardFile {
    pub(super) name: String,
    pub(super) file: Arc<dyn Blob>,
    /// In offset order.
    pub(super) header: IndexMap<Name, StoredTensor>,
}

impl ShardFile {
    pub(super) fn stored(&self) -> StoredFile<'_> {
        StoredFile {
            name: &self.name,
            file: &self.file,
            tensors: &self.header,
        }
    }
}

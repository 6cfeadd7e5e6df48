//! The container that views are written in: safetensors.

use std::ffi::OsStr;

use crate::error::{Hint, Result};
use crate::format::checkpoint::Container;
use crate::format::index;
use crate::format::packing::{Entry, Part};
use crate::format::safetensors;
use crate::tensor::Name;

/// What views are written in.
pub const OUTPUT: Output = Output(());

/// The writing half of a container.
#[derive(Debug, Clone, Copy)]
pub struct Output(());

impl Output {
    /// The container.
    pub fn container(self) -> Container {
        Container::Safetensors
    }

    /// Whether `name` is that of a file that holds tensors.
    pub fn is_shard(self, name: &OsStr) -> bool {
        self.container().is_shard(name)
    }

    /// The name of an index.
    pub fn index_file(self) -> &'static str {
        safetensors::INDEX_FILE
    }

    /// The name of a file that is the whole checkpoint, without an index.
    pub fn single_file(self) -> &'static str {
        safetensors::SINGLE_FILE
    }

    /// Whether `name` is one that loaders expect without an index telling them.
    pub fn is_standard_name(self, name: &str) -> bool {
        safetensors::is_standard_name(name)
    }

    /// The standard names of `count` shards.
    ///
    /// # Errors
    /// If they are more than such names can number.
    pub fn standard_names(self, count: usize) -> Result<impl Iterator<Item = String>> {
        safetensors::standard_names(count)
    }

    /// The file called `file` that holds `tensors`, in the order that is best for loaders. Where they
    /// are too many for a file, the error has this `advice`.
    ///
    /// # Errors
    /// If they are too many.
    pub fn pack(self, file: &str, tensors: &[Entry], advice: &Hint) -> Result<Vec<Part>> {
        safetensors::pack(file, tensors, advice)
    }

    /// The text of the index of `tensors`, each with the name of its file and its length in bytes, in
    /// the order of the files.
    pub fn index<'a>(
        self,
        tensors: impl Iterator<Item = (&'a Name, &'a str, u64)> + Clone,
    ) -> Vec<u8> {
        index::text(tensors)
    }
}

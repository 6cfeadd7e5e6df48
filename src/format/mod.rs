//! Containers: how tensors are packed in files. Each is a folder here that reads and writes it; all
//! else sees a [`Checkpoint`], which is tables of tensors, and files made of [`Part`]s.
//!
//! To add a container: its folder, a variant of [`Container`], and what each `match` here asks for.

mod checkpoint;
pub mod gguf;
mod packing;
pub mod safetensors;

use std::ffi::{OsStr, OsString};

use indexmap::IndexSet;

use crate::error::{Hint, Result};
use crate::source::{Directory, Location};
use crate::tensor::Name;

pub use checkpoint::{Checkpoint, Container, LeftOut, Shard, StoredTensor};
pub use packing::{Entry, Part};

/// Every container that can be read. Where the files of several are in a directory, the first of them
/// is the checkpoint.
const READABLE: [Container; 1] = [Container::Safetensors];

/// What views are written in.
pub const OUTPUT: Container = Container::Safetensors;

impl Checkpoint {
    /// Opens the checkpoint at `location`, in whichever container it is.
    ///
    /// # Errors
    /// If there is none, or its files do not agree with each other; the error names the file and the
    /// tensor.
    pub fn open(location: impl Into<Location>) -> Result<Self> {
        Self::in_directory(&*location.into().open()?)
    }

    /// The same, where `location` may also be a single file: its tensors alone, whatever is beside it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_or_file(location: impl Into<Location>) -> Result<Self> {
        let location = location.into();
        let name = location.as_path().file_name().unwrap_or_default();
        let mut containers = READABLE.iter();
        let container = containers.find(|container| container.is_shard(name));
        match (container, location.weights()?) {
            (Some(Container::Safetensors), Some(file)) => safetensors::read_file(file),
            _ => Self::open(location),
        }
    }

    /// The same of a directory that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_directory(directory: &dyn Directory) -> Result<Self> {
        let names = directory.names()?;
        match Container::recognize(&names) {
            Container::Safetensors => safetensors::read(directory, &names),
        }
    }
}

/// The names of the tensors of the checkpoint at `location`, in order. With an index, its shards need
/// not exist.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn tensor_names(location: impl Into<Location>) -> Result<IndexSet<Name>> {
    let directory = location.into().open()?;
    for container in READABLE {
        if let Some(names) = container.indexed_names(&*directory)? {
            return Ok(names);
        }
    }
    let checkpoint = Checkpoint::in_directory(&*directory)?;
    Ok(checkpoint.tensors.into_keys().collect())
}

/// Whether `name` is that of a file that holds tensors, in a container that can be read.
pub fn is_shard(name: &OsStr) -> bool {
    READABLE.iter().any(|container| container.is_shard(name))
}

/// The names of indexes, of all containers.
pub fn index_files() -> impl Iterator<Item = &'static str> {
    READABLE.iter().map(|container| container.index_file())
}

impl Container {
    /// The container of the weights in a directory that has these `names`; if none is recognised, the
    /// first one, whose reader says what is missing.
    fn recognize(names: &[OsString]) -> Self {
        let has_weights = |container: &Container| {
            let is_weights =
                |name: &OsString| container.is_shard(name) || **name == *container.index_file();
            names.iter().any(is_weights)
        };
        let found = READABLE.into_iter().find(has_weights);
        found.unwrap_or(READABLE[0])
    }

    /// The names of the tensors in `directory` if it has an index of this container, in order.
    fn indexed_names(self, directory: &dyn Directory) -> Result<Option<IndexSet<Name>>> {
        match self {
            Container::Safetensors => safetensors::indexed_names(directory),
        }
    }

    /// Whether `name` is that of a file that holds tensors.
    pub fn is_shard(self, name: &OsStr) -> bool {
        match self {
            Container::Safetensors => safetensors::is_shard(name),
        }
    }

    /// The name of an index.
    pub fn index_file(self) -> &'static str {
        match self {
            Container::Safetensors => safetensors::INDEX_FILE,
        }
    }

    /// The name of a file that is the whole checkpoint, without an index.
    pub fn single_file(self) -> &'static str {
        match self {
            Container::Safetensors => safetensors::SINGLE_FILE,
        }
    }

    /// Whether `name` is one that loaders expect without an index telling them.
    pub fn is_standard_name(self, name: &str) -> bool {
        match self {
            Container::Safetensors => safetensors::is_standard_name(name),
        }
    }

    /// The standard names of `count` shards.
    ///
    /// # Errors
    /// If they are more than such names can number.
    pub fn standard_names(self, count: usize) -> Result<impl Iterator<Item = String>> {
        match self {
            Container::Safetensors => safetensors::standard_names(count),
        }
    }

    /// The file called `file` that holds `tensors`, in the order that is best for loaders. Where they
    /// are too many for a file, the error has this `advice`.
    ///
    /// # Errors
    /// If they are too many.
    pub fn pack(self, file: &str, tensors: &[Entry], advice: &Hint) -> Result<Vec<Part>> {
        match self {
            Container::Safetensors => safetensors::pack(file, tensors, advice),
        }
    }

    /// The text of the index of `tensors`, each with the name of its file and its length in bytes, in
    /// the order of the files.
    pub fn index<'a>(
        self,
        tensors: impl Iterator<Item = (&'a Name, &'a str, u64)> + Clone,
    ) -> Vec<u8> {
        match self {
            Container::Safetensors => safetensors::index_text(tensors),
        }
    }
}

//! Containers: how tensors are packed in files. Each is a folder here that reads and writes it; all
//! else sees a [`Checkpoint`], which is tables of tensors, and files made of [`Part`]s.
//!
//! To add a container: its folder, a variant of [`Container`], and what each `match` here asks for.
//! Views are written in [`OUTPUT`].

mod checkpoint;
pub mod gguf;
mod output;
mod packing;
pub mod safetensors;

use std::ffi::{OsStr, OsString};

use indexmap::IndexSet;

use crate::error::Result;
use crate::source::{AuxFiles, Class, Directory, Location, missing};
use crate::tensor::Name;

pub use checkpoint::{Checkpoint, Container, LeftOut, Shard, StoredTensor};
pub use output::{OUTPUT, Output};
pub use packing::{Entry, Part};

/// Every container that can be read. Where the files of several are in a directory, the first of them
/// is the checkpoint.
const READABLE: [Container; 2] = [Container::Safetensors, Container::Gguf];

impl Checkpoint {
    /// Opens the checkpoint at `location`, a directory or a GGUF file.
    ///
    /// # Errors
    /// If there is none, or its files do not agree with each other; the error names the file and the
    /// tensor.
    pub fn open(location: impl Into<Location>) -> Result<Self> {
        let location = location.into();
        match Self::gguf_file(&location)? {
            Some(checkpoint) => Ok(checkpoint),
            None => Self::in_directory(&*location.open()?),
        }
    }

    /// The GGUF file at `location`, with the split files that belong to it; `None` if it is none.
    fn gguf_file(location: &Location) -> Result<Option<Self>> {
        let path = location.as_path();
        let name = path.file_name().unwrap_or_default();
        if !Container::Gguf.is_shard(name) {
            return Ok(None);
        }
        let Some(file) = location.weights()? else {
            return Ok(None);
        };
        let mut sibling = |name: &str| {
            let path = path.with_file_name(name);
            let file = Location::Local(path.clone()).weights()?;
            file.ok_or_else(|| missing(&path, "file"))
        };
        gguf::read_file(file, &mut sibling).map(Some)
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

    /// What the directory at `location` has beside weights, which may be missing.
    ///
    /// # Errors
    /// If there is none, or it cannot be listed.
    pub fn files_beside(location: &Location) -> Result<AuxFiles> {
        let directory = location.open()?;
        directory.aux(&directory.names()?, &mut |name| {
            if is_shard(name) || index_files().any(|index| name == index) {
                Class::Weights
            } else if safetensors::is_of_another_format(&name.to_string_lossy()) {
                Class::LeftOut("weights in another format")
            } else {
                Class::Aux
            }
        })
    }

    /// The same of a directory that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_directory(directory: &dyn Directory) -> Result<Self> {
        let names = directory.names()?;
        match Container::recognize(&names) {
            Container::Safetensors => safetensors::read(directory, &names),
            Container::Gguf => gguf::read(directory, &names),
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
    READABLE
        .iter()
        .filter_map(|container| container.index_file())
}

impl Container {
    /// The container of the weights in a directory that has these `names`; if none is recognised, the
    /// first one, whose reader says what is missing.
    fn recognize(names: &[OsString]) -> Self {
        let has_weights = |container: &Container| {
            let is_index =
                |name: &OsString| container.index_file().is_some_and(|index| **name == *index);
            names
                .iter()
                .any(|name| container.is_shard(name) || is_index(name))
        };
        let found = READABLE.into_iter().find(has_weights);
        found.unwrap_or(READABLE[0])
    }

    /// The names of the tensors in `directory` if it has an index of this container, in order.
    fn indexed_names(self, directory: &dyn Directory) -> Result<Option<IndexSet<Name>>> {
        match self {
            Container::Safetensors => safetensors::indexed_names(directory),
            Container::Gguf => Ok(None),
        }
    }

    /// Whether `name` is that of a file that holds tensors.
    pub fn is_shard(self, name: &OsStr) -> bool {
        match self {
            Container::Safetensors => safetensors::is_shard(name),
            Container::Gguf => gguf::is_shard(name),
        }
    }

    /// The name of an index, if there is such a thing.
    fn index_file(self) -> Option<&'static str> {
        match self {
            Container::Safetensors => Some(safetensors::INDEX_FILE),
            Container::Gguf => None,
        }
    }
}

//! Containers: how tensors are packed in files. Each is a folder here that reads and writes it; all
//! else sees a [`Checkpoint`], which is tables of tensors, and files made of [`Part`]s.
//!
//! To add a container: its folder, a variant of [`Container`], and what each `match` here asks for.

mod checkpoint;
mod copies;
pub mod gguf;
pub mod imatrix;
mod index;
mod output;
mod packing;
pub mod safetensors;
mod sharded;
mod text;
mod torch;
mod training;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use crate::error::Result;
use crate::format::sharded::Table;
use crate::source::{AuxFiles, Blob, Class, Directory, Location, missing};
use crate::tensor::{Name, Shape};

pub use checkpoint::{
    Checkpoint, Container, LeftOut, Piece, Pieced, Shard, StoredTensor, Training,
};
pub use index::{Index, WeightMap};
pub use output::{OUTPUT, Output};
pub use packing::{Entry, Part};

/// Every container that can be read. Where the files of several are in a directory, the first of them
/// is the checkpoint.
const READABLE: [Container; 3] = [Container::Safetensors, Container::Torch, Container::Gguf];

impl Checkpoint {
    /// Opens the checkpoint at `location`, in whichever container it is: a directory, or a file of a container
    /// whose files often are in no directory of their own.
    ///
    /// # Errors
    /// If there is none, or its files do not agree with each other; the error names the file and the
    /// tensor.
    pub fn open(location: impl Into<Location>) -> Result<Self> {
        Self::open_where(location.into(), Container::stands_alone)
    }

    /// The same, where `location` may be a single file of any container: its tensors alone, whatever else the directory holds.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_or_file(location: impl Into<Location>) -> Result<Self> {
        Self::open_where(location.into(), |_| true)
    }

    fn open_where(location: Location, may_be_file: fn(Container) -> bool) -> Result<Self> {
        let name = location.as_path().file_name().unwrap_or_default();
        if let Some(container) = Container::of_file(name).filter(|&it| may_be_file(it))
            && let Some(file) = location.weights()?
        {
            return match container {
                Container::Gguf => gguf::read_file(file, &mut |name| sibling(&location, name)),
                _ => sharded::read_file(container, file),
            };
        }
        Self::in_directory(&*location.open()?)
    }

    /// The same of a directory that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_directory(directory: &dyn Directory) -> Result<Self> {
        let names = directory.names()?;
        if !Container::has_weights(&names)
            && let Some(checkpoint) = training::read(directory, &names)?
        {
            return Ok(checkpoint);
        }
        match Container::recognize(&names) {
            Container::Gguf => gguf::read(directory, &names),
            container => sharded::read(container, directory, &names),
        }
    }

    /// What the directory at `location` has besides weights, which may be missing.
    ///
    /// # Errors
    /// If there is none, or it cannot be listed.
    pub fn files_beside(location: &Location) -> Result<AuxFiles> {
        let directory = location.open()?;
        let is_weights = |name: &OsStr| {
            let is_shard = READABLE.iter().any(|container| container.is_shard(name));
            is_shard || index_files().any(|index| name == index)
        };
        directory.aux(&directory.names()?, &mut |name| {
            let text = name.to_string_lossy();
            if is_weights(name) {
                Class::Weights
            } else if sharded::is_of_another_format(Container::Safetensors, &text) {
                Class::LeftOut("weights in another format")
            } else {
                Class::Aux
            }
        })
    }
}

/// The file `name` in the directory of that at `location`.
fn sibling(location: &Location, name: &str) -> Result<Arc<dyn Blob>> {
    let beside = location.with_file_name(name);
    let file = beside.weights()?;
    file.ok_or_else(|| missing(beside.as_path(), "file"))
}

/// The names of the tensors of the checkpoint at `location`, in order. With an index, its shards need
/// not exist.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn tensor_names(location: impl Into<Location>) -> Result<IndexSet<Name>> {
    let directory = location.into().open()?;
    let container = Container::recognize(&directory.names()?);
    if container != Container::Gguf
        && let Some(names) = sharded::indexed_names(container, &*directory)?
    {
        return Ok(names);
    }
    let checkpoint = Checkpoint::in_directory(&*directory)?;
    Ok(checkpoint.tensors.into_keys().collect())
}

/// The names and shapes of the tensors of the checkpoint at `location`; shapes only where its files are there, and
/// nothing if it has no weights in the names of Hugging Face.
///
/// # Errors
/// As [`Checkpoint::open`].
pub(crate) fn known_tensors(location: &Location) -> Result<Option<IndexMap<Name, Option<Shape>>>> {
    let directory = location.open()?;
    let Some(container) = Container::find(&directory.names()?) else {
        return Ok(None);
    };
    if container == Container::Gguf {
        return Ok(None);
    }
    let indexed = sharded::indexed_names(container, &*directory)?;
    let checkpoint = match (Checkpoint::in_directory(&*directory), indexed) {
        (Ok(checkpoint), _) => checkpoint,
        (Err(_), Some(names)) => {
            return Ok(Some(names.into_iter().map(|name| (name, None)).collect()));
        }
        (Err(error), None) => return Err(error),
    };
    let names = checkpoint.tensors.keys().map(|name| {
        let shape = checkpoint.tensor(name).map(|tensor| tensor.shape.clone());
        (name.clone(), shape)
    });
    Ok(Some(names.collect()))
}

/// Whether a file called `name` can be named alone, in the place of a checkpoint's directory.
pub fn is_file(name: &OsStr) -> bool {
    Container::of_file(name).is_some()
}

/// The names of indexes, of all containers.
pub fn index_files() -> impl Iterator<Item = &'static str> {
    let names = READABLE.iter().map(|container| container.index_file());
    names.filter(|name| !name.is_empty())
}

impl Container {
    /// The container of the weights in a directory that has these `names`; if none is recognised, the
    /// first one, whose reader says what is missing.
    fn recognize(names: &[OsString]) -> Self {
        Self::find(names).unwrap_or(READABLE[0])
    }

    /// Whether there are weights among `names`, other than of training programs.
    fn has_weights(names: &[OsString]) -> bool {
        let is_of_rank = |name: &OsString| training::is_shard_of_rank(name);
        Self::find(names).is_some_and(|container| {
            container != Container::Safetensors
                || names.iter().any(|name| {
                    (container.is_shard(name) || **name == *container.index_file())
                        && !is_of_rank(name)
                })
        })
    }

    fn find(names: &[OsString]) -> Option<Self> {
        let has_weights = |container: &Container| {
            let is_weights =
                |name: &OsString| container.is_shard(name) || **name == *container.index_file();
            names.iter().any(is_weights)
        };
        READABLE.into_iter().find(has_weights)
    }

    /// The container of a file called `name` that is named alone.
    fn of_file(name: &OsStr) -> Option<Self> {
        let is_of = |container: &Container| match container {
            Container::Safetensors => container.is_shard(name),
            Container::Torch => torch::has_extension(name),
            Container::Gguf => container.is_shard(name),
            Container::Distcp => false,
        };
        READABLE.into_iter().find(is_of)
    }

    /// What `file` says of its tensors.
    fn table(self, file: &dyn Blob) -> Result<Table> {
        match self {
            Container::Safetensors => Ok(Table {
                tensors: safetensors::read_header(file)?,
                ..Table::default()
            }),
            Container::Torch => torch::read(file),
            Container::Gguf => Ok(Table {
                tensors: gguf::stored_tensors(file)?,
                ..Table::default()
            }),
            Container::Distcp => unreachable!("only whole checkpoints are read"),
        }
    }

    /// The shard that `file` is, which belongs to the directory `checkpoint`.
    ///
    /// # Errors
    /// If it cannot be read; the error names the file and the tensor.
    pub(crate) fn shard(self, checkpoint: &Path, file: Arc<dyn Blob>) -> Result<Arc<Shard>> {
        let mut read = sharded::read_file(self, file)?;
        let shard = read.shards.pop().expect("a file is one shard");
        Ok(Arc::new(Shard {
            checkpoint: checkpoint.into(),
            name: shard.name.clone(),
            container: self,
            blob: shard.blob.clone(),
            tensors: shard.tensors.clone(),
        }))
    }

    /// Whether a file is often all that there is of a model.
    fn stands_alone(self) -> bool {
        match self {
            Container::Safetensors | Container::Distcp => false,
            Container::Torch | Container::Gguf => true,
        }
    }

    /// Whether tensors of a file may have bytes in common.
    pub fn shares_bytes(self) -> bool {
        match self {
            Container::Safetensors | Container::Gguf | Container::Distcp => false,
            Container::Torch => true,
        }
    }

    /// What is worth knowing of how `tensors` of a file are stored.
    fn remarks(self, tensors: &IndexMap<Name, StoredTensor>) -> Vec<String> {
        match self {
            Container::Safetensors | Container::Gguf | Container::Distcp => Vec::new(),
            Container::Torch => torch::remarks(tensors),
        }
    }

    /// What wrappers of a model put before all of `names`.
    fn wrapping<'a>(self, names: impl Iterator<Item = &'a Name> + Clone) -> &'a str {
        match self {
            Container::Safetensors | Container::Gguf | Container::Distcp => "",
            Container::Torch => torch::wrapping(names),
        }
    }

    /// Whether `name` is that of a file that holds tensors.
    pub fn is_shard(self, name: &OsStr) -> bool {
        match self {
            Container::Safetensors => safetensors::is_shard(name),
            Container::Torch => torch::is_shard(name),
            Container::Gguf => gguf::is_shard(name),
            Container::Distcp => name.as_encoded_bytes().ends_with(b".distcp"),
        }
    }

    /// The name of an index; empty if there is no such thing.
    pub fn index_file(self) -> &'static str {
        match self {
            Container::Safetensors => safetensors::INDEX_FILE,
            Container::Torch => torch::INDEX_FILE,
            Container::Gguf | Container::Distcp => "",
        }
    }

    /// The name of a file that is the whole checkpoint, without an index; empty if it may have any.
    pub fn single_file(self) -> &'static str {
        match self {
            Container::Safetensors => safetensors::SINGLE_FILE,
            Container::Torch => torch::SINGLE_FILE,
            Container::Gguf | Container::Distcp => "",
        }
    }
}

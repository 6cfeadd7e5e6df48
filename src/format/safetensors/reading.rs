//! A checkpoint directory in Hugging Face layout.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use crate::error::{Error, Result};
use crate::format::safetensors::header::{self, StoredTensor};
use crate::jobs;
use crate::source::AuxEntry;
use crate::source::check_directory;
use crate::source::local::directory::{self as aux_files, AuxScan};
use crate::source::{Attributes, Blob, INDEX_FILE, Index, LocalFile, SINGLE_FILE, WeightMap};
use crate::tensor::Name;

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

/// One safetensors file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    pub name: String,
    pub blob: Arc<dyn Blob>,
    /// What its header names, in offset order, whether or not the index names it too.
    pub header: IndexMap<Name, StoredTensor>,
}

impl Checkpoint {
    /// Opens the checkpoint in `directory`.
    ///
    /// Its weights are what `model.safetensors.index.json` names; without an index,
    /// `model.safetensors`; without that, every `*.safetensors` at the top level.
    ///
    /// # Errors
    /// If index, headers and file lengths do not agree with each other; the error names the file
    /// and the tensor.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        check_directory(&directory)?;
        let attributes = Attributes::read(&directory)?;
        let AuxScan {
            entries,
            mut left_out,
            safetensors,
            has_index,
        } = aux_files::scan(&directory)?;

        let index = match has_index {
            true => Some(read_index(&directory)?),
            false => None,
        };
        let shard_names = shard_names(&directory, index.as_ref(), &safetensors)?;
        for name in &safetensors {
            if !shard_names.contains(name.as_str()) {
                left_out.push(match has_index {
                    true => format!("{name}: the index does not name it"),
                    false => format!("{name}: model.safetensors is the whole checkpoint"),
                });
            }
        }

        let shard_names: Vec<&str> = shard_names.into_iter().collect();
        let shards = jobs::map(&shard_names, jobs::processors(), |name| {
            let file = open_shard(&directory, name, index.as_ref())?;
            Ok(Arc::new(Shard {
                name: (*name).to_owned(),
                header: header::read(&file)?,
                blob: Arc::new(file),
            }))
        })?;
        let tensors = match index {
            Some(index) => tensors_by_index(&directory, index, &shards, &mut left_out)?,
            None => tensors_by_headers(&shards)?,
        };
        Ok(Checkpoint {
            directory,
            attributes,
            shards,
            tensors,
            aux: entries,
            left_out,
        })
    }

    /// The tensor called `name`, as its shard's header describes it.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.shards[*self.tensors.get(name)?].header.get(name)
    }

    /// The bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        let tensors = self.tensors.keys().filter_map(|name| self.tensor(name));
        tensors.fold(0, |sum, tensor| sum.saturating_add(tensor.len))
    }
}

/// The names of a checkpoint's tensors, in order. With an index, its shards need not exist.
pub fn tensor_names(directory: &Path) -> Result<IndexSet<Name>> {
    if directory.join(INDEX_FILE).exists() {
        let index = read_index(directory)?;
        return Ok(index.weight_map.tensors.into_keys().collect());
    }
    let checkpoint = Checkpoint::open(directory)?;
    Ok(checkpoint.tensors.into_keys().collect())
}

fn read_index(directory: &Path) -> Result<Index> {
    let file = LocalFile::new(directory.join(INDEX_FILE))?;
    Index::parse(&file.read_all(Index::MAX_BYTES)?, file.path())
}

fn shard_names<'a>(
    directory: &Path,
    index: Option<&'a Index>,
    safetensors: &'a [String],
) -> Result<IndexSet<&'a str>> {
    if let Some(index) = index {
        return Ok(index.weight_map.shards.iter().map(String::as_str).collect());
    }
    if safetensors.iter().any(|name| name == SINGLE_FILE) {
        return Ok(IndexSet::from([SINGLE_FILE]));
    }
    if safetensors.is_empty() {
        return Err(Error::checkpoint(
            directory,
            format!(
                "no checkpoint here: expected {INDEX_FILE} or *.safetensors files (weights in other formats must be converted first)"
            ),
        ));
    }
    Ok(safetensors.iter().map(String::as_str).collect())
}

fn open_shard(directory: &Path, name: &str, index: Option<&Index>) -> Result<LocalFile> {
    let path = directory.join(name);
    if let Some(index) = index
        && !path.exists()
        && let WeightMap { tensors, shards } = &index.weight_map
        && let Some((tensor, _)) = tensors.iter().find(|(_, shard)| shards[**shard] == name)
    {
        return Err(Error::tensor(
            &path,
            tensor,
            "the index says it is in this shard, but there is no such file; is the download complete?",
        ));
    }
    LocalFile::of_weights(path)
}

/// The tensors of `index`, once every one is in the one shard that it names.
fn tensors_by_index(
    directory: &Path,
    index: Index,
    shards: &[Arc<Shard>],
    left_out: &mut Vec<String>,
) -> Result<IndexMap<Name, usize>> {
    let tensors = index.weight_map.tensors;
    let mut found: Vec<Option<usize>> = vec![None; tensors.len()];
    for (position, shard) in shards.iter().enumerate() {
        for name in shard.header.keys() {
            let Some(tensor) = tensors.get_index_of(name) else {
                left_out.push(format!(
                    "tensor {name} in {}: the index does not name it",
                    shard.name
                ));
                continue;
            };
            if let Some(first) = found[tensor].replace(position) {
                return Err(in_two_shards(shard, name, &shards[first].name));
            }
        }
    }
    for ((name, &named), found) in tensors.iter().zip(found) {
        let problem = match found {
            Some(position) if position == named => continue,
            Some(position) => format!("but it is in {}", shards[position].name),
            None => "but the shard's header does not have it".to_owned(),
        };
        return Err(Error::tensor(
            directory.join(&shards[named].name),
            name,
            format!("the index says it is in this shard, {problem}"),
        ));
    }
    Ok(tensors)
}

fn tensors_by_headers(shards: &[Arc<Shard>]) -> Result<IndexMap<Name, usize>> {
    let mut tensors = IndexMap::new();
    for (position, shard) in shards.iter().enumerate() {
        for name in shard.header.keys() {
            if let Some(first) = tensors.insert(name.clone(), position) {
                return Err(in_two_shards(shard, name, &shards[first].name));
            }
        }
    }
    Ok(tensors)
}

fn in_two_shards(shard: &Shard, tensor: &str, other: &str) -> Error {
    Error::tensor(
        shard.blob.location(),
        tensor,
        format!("it is also in {other}; a tensor must be in one shard only"),
    )
}

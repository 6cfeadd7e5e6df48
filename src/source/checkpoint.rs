//! A checkpoint directory in Hugging Face layout.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use crate::error::{Error, Result};
use crate::source::aux_files::{self, AuxEntry, AuxScan};
use crate::source::header::{self, StoredTensor};
use crate::source::{Attributes, INDEX_FILE, Index, SourceFile};

/// A checkpoint whose index and headers were read and found to agree. No tensor byte was read.
#[derive(Debug)]
pub struct Checkpoint {
    pub directory: PathBuf,
    pub attributes: Attributes,
    /// In the order in which the index first names them (name order without an index).
    pub shards: Vec<Arc<Shard>>,
    /// Every tensor, in the order of the index (offset order within each shard without one).
    pub tensors: IndexMap<String, StoredAt>,
    /// Everything that is not a weight, in name order.
    pub aux: Vec<AuxEntry>,
    /// What the directory holds but the checkpoint does not, each with its reason.
    pub left_out: Vec<String>,
}

/// One safetensors file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    pub name: String,
    pub file: Arc<SourceFile>,
    /// Tensors in the file's header, whether or not the index names them.
    pub header_tensors: usize,
}

/// Where a tensor of a checkpoint lies.
#[derive(Debug)]
pub struct StoredAt {
    /// Position in [`Checkpoint::shards`].
    pub shard: usize,
    pub tensor: StoredTensor,
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

        let mut shards = Vec::with_capacity(shard_names.len());
        let mut headers = Vec::with_capacity(shard_names.len());
        for name in &shard_names {
            let file = Arc::new(open_shard(&directory, name, index.as_ref())?);
            let tensors = header::read(&file)?;
            shards.push(Arc::new(Shard {
                name: (*name).to_owned(),
                file,
                header_tensors: tensors.len(),
            }));
            headers.push(tensors);
        }
        let tensors = match &index {
            Some(index) => tensors_by_index(&directory, index, &shards, headers, &mut left_out)?,
            None => tensors_by_headers(&shards, headers)?,
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
}

/// The names of a checkpoint's tensors, in order. With an index, its shards need not exist.
pub fn tensor_names(directory: &Path) -> Result<IndexSet<String>> {
    if directory.join(INDEX_FILE).exists() {
        let index = read_index(directory)?;
        return Ok(index.weight_map.0.into_keys().collect());
    }
    let checkpoint = Checkpoint::open(directory)?;
    Ok(checkpoint.tensors.into_keys().collect())
}

fn read_index(directory: &Path) -> Result<Index> {
    let file = SourceFile::new(directory.join(INDEX_FILE))?;
    Index::parse(&file.read_all()?, file.path())
}

fn shard_names<'a>(
    directory: &Path,
    index: Option<&'a Index>,
    safetensors: &'a [String],
) -> Result<IndexSet<&'a str>> {
    const SINGLE: &str = "model.safetensors";
    if let Some(index) = index {
        return Ok(index.weight_map.0.values().map(String::as_str).collect());
    }
    if safetensors.iter().any(|name| name == SINGLE) {
        return Ok(IndexSet::from([SINGLE]));
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

fn open_shard(directory: &Path, name: &str, index: Option<&Index>) -> Result<SourceFile> {
    let path = directory.join(name);
    let tensor = index.and_then(|index| {
        let mut entries = index.weight_map.0.iter();
        entries.find(|(_, shard)| *shard == name)
    });
    match tensor {
        Some((tensor, _)) if !path.exists() => Err(Error::tensor(
            &path,
            tensor,
            "the index says it is in this shard, but there is no such file; is the download complete?",
        )),
        _ => SourceFile::new(path),
    }
}

fn tensors_by_index(
    directory: &Path,
    index: &Index,
    shards: &[Arc<Shard>],
    headers: Vec<Vec<StoredTensor>>,
    left_out: &mut Vec<String>,
) -> Result<IndexMap<String, StoredAt>> {
    let mut found: HashMap<String, StoredAt> = HashMap::new();
    for (shard, header) in headers.into_iter().enumerate() {
        for tensor in header {
            if !index.weight_map.0.contains_key(&tensor.name) {
                left_out.push(format!(
                    "tensor {} in {}: the index does not name it",
                    tensor.name, shards[shard].name
                ));
            } else if let Some(first) = found.get(&tensor.name) {
                let other = &shards[first.shard].name;
                return Err(in_two_shards(&shards[shard], &tensor.name, other));
            } else {
                found.insert(tensor.name.clone(), StoredAt { shard, tensor });
            }
        }
    }
    let mut tensors = IndexMap::with_capacity(index.weight_map.0.len());
    for (name, named) in &index.weight_map.0 {
        let problem = match found.remove(name) {
            Some(at) if shards[at.shard].name == *named => {
                tensors.insert(name.clone(), at);
                continue;
            }
            Some(at) => format!("but it is in {}", shards[at.shard].name),
            None => "but the shard's header does not have it".to_owned(),
        };
        return Err(Error::tensor(
            directory.join(named),
            name,
            format!("the index says it is in this shard, {problem}"),
        ));
    }
    Ok(tensors)
}

fn tensors_by_headers(
    shards: &[Arc<Shard>],
    headers: Vec<Vec<StoredTensor>>,
) -> Result<IndexMap<String, StoredAt>> {
    let mut tensors: IndexMap<String, StoredAt> = IndexMap::new();
    for (shard, header) in headers.into_iter().enumerate() {
        for tensor in header {
            if let Some(first) = tensors.get(&tensor.name) {
                return Err(in_two_shards(
                    &shards[shard],
                    &tensor.name,
                    &shards[first.shard].name,
                ));
            }
            tensors.insert(tensor.name.clone(), StoredAt { shard, tensor });
        }
    }
    Ok(tensors)
}

fn in_two_shards(shard: &Shard, tensor: &str, other: &str) -> Error {
    Error::tensor(
        shard.file.path(),
        tensor,
        format!("it is also in {other}; a tensor must be in one shard only"),
    )
}

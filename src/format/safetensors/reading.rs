//! A directory of safetensors files, read as a checkpoint: index, headers and lengths are held against
//! each other.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Checkpoint, Container, LeftOut, Shard};
use crate::format::safetensors::index::{Index, WeightMap};
use crate::format::safetensors::names::{EXTENSION, INDEX_FILE, SINGLE_FILE};
use crate::format::safetensors::{copies, header};
use crate::jobs;
use crate::source::{AuxFiles, Blob, Class, Directory};
use crate::tensor::Name;

/// Reads the checkpoint in `directory`, which has these `names`.
///
/// Its weights are what `model.safetensors.index.json` names; without an index,
/// `model.safetensors`; without that, every `*.safetensors` at the top level.
///
/// # Errors
/// If index, headers and file lengths do not agree with each other; the error names the file
/// and the tensor.
pub(in crate::format) fn read(directory: &dyn Directory, names: &[OsString]) -> Result<Checkpoint> {
    let mut files = Files::default();
    let AuxFiles { entries, left_out } = directory.aux(names, &mut |name| files.class(name))?;
    let mut left_out: Vec<LeftOut> = left_out.into_iter().map(LeftOut::from).collect();
    let Files {
        safetensors,
        has_index,
    } = files;

    let index = if has_index {
        Some(read_index(directory)?)
    } else {
        None
    };
    let shard_names = shard_names(directory, index.as_ref(), &safetensors)?;
    for name in &safetensors {
        if !shard_names.contains(name.as_str()) {
            let reason = if has_index {
                "the index does not name it"
            } else {
                "model.safetensors is the whole checkpoint"
            };
            // The same weights in another format give nothing that is missing.
            let file = (!is_of_another_format(name)).then(|| directory.location().join(name));
            left_out.push(LeftOut {
                what: format!("{name}: {reason}"),
                file,
            });
        }
    }

    let shard_names: Vec<&str> = shard_names.into_iter().collect();
    let checkpoint: Arc<Path> = directory.location().into();
    let shards = jobs::map(&shard_names, jobs::processors(), |name| {
        let blob = open_shard(directory, name, index.as_ref())?;
        Ok(Arc::new(Shard {
            name: (*name).to_owned(),
            checkpoint: checkpoint.clone(),
            container: Container::Safetensors,
            tensors: header::read(&*blob)?,
            blob,
        }))
    })?;
    let tensors = match index {
        Some(index) => tensors_by_index(directory, index, &shards, &mut left_out)?,
        None => tensors_by_headers(&shards, &mut left_out)?,
    };
    Ok(Checkpoint {
        path: directory.location().to_owned(),
        attributes: directory.attributes(),
        shards,
        tensors,
        aux: entries,
        left_out,
        gguf: None,
    })
}

/// Reads `file` as a checkpoint that is this file alone.
///
/// # Errors
/// If its header and its length do not agree; the error names the file and the tensor.
pub(in crate::format) fn read_file(file: Arc<dyn Blob>) -> Result<Checkpoint> {
    let location = file.location();
    let name = location.file_name().unwrap_or_default();
    let shards = [Arc::new(Shard {
        name: name.to_string_lossy().into_owned(),
        checkpoint: location.clone(),
        container: Container::Safetensors,
        tensors: header::read(&*file)?,
        blob: file.clone(),
    })];
    let mut left_out = Vec::new();
    Ok(Checkpoint {
        path: location.to_path_buf(),
        attributes: file.attributes(),
        tensors: tensors_by_headers(&shards, &mut left_out)?,
        shards: shards.into(),
        aux: Vec::new(),
        left_out,
        gguf: None,
    })
}

/// The names of the tensors of the checkpoint in `directory` if it has an index, in order. Its shards
/// need not exist.
pub(in crate::format) fn indexed_names(
    directory: &dyn Directory,
) -> Result<Option<IndexSet<Name>>> {
    if !directory.has(INDEX_FILE) {
        return Ok(None);
    }
    let index = read_index(directory)?;
    Ok(Some(index.weight_map.tensors.into_keys().collect()))
}

/// The files of a directory that are weights.
#[derive(Debug, Default)]
struct Files {
    /// Names of all `*.safetensors` at the top level, sorted.
    safetensors: Vec<String>,
    has_index: bool,
}

impl Files {
    /// Notes `name` if it is of weights.
    fn class(&mut self, name: &OsStr) -> Class {
        let text = name.to_string_lossy();
        if text == INDEX_FILE {
            self.has_index = true;
        } else if text.ends_with(EXTENSION) {
            match name.to_str() {
                Some(name) => self.safetensors.push(name.to_owned()),
                None => return Class::LeftOut("its name is not valid UTF-8"),
            }
        } else if is_of_another_format(&text) {
            return Class::LeftOut("weights in another format");
        } else if text.ends_with(".safetensors.index.json") {
            return Class::LeftOut("an index of other weights");
        } else {
            return Class::Aux;
        }
        Class::Weights
    }
}

/// Whether `name` is of the weights, or of an index of them, that some repositories have beside
/// safetensors.
pub(in crate::format) fn is_of_another_format(name: &str) -> bool {
    const OTHER_FORMATS: [(&str, &str); 4] = [
        ("pytorch_model", ".bin"),
        ("tf_model", ".h5"),
        ("flax_model", ".msgpack"),
        ("consolidated", ""),
    ];
    let weights = name.strip_suffix(".index.json").unwrap_or(name);
    let mut formats = OTHER_FORMATS.iter();
    formats.any(|(start, end)| weights.starts_with(start) && weights.ends_with(end))
}

fn read_index(directory: &dyn Directory) -> Result<Index> {
    let file = directory.file(INDEX_FILE)?;
    Index::parse(&file.read_all(Index::MAX_BYTES)?, file.location())
}

fn shard_names<'a>(
    directory: &dyn Directory,
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
        return Err(Error::of_file(
            Code::NoCheckpoint,
            directory.location(),
            format!(
                "no checkpoint here: expected {INDEX_FILE}, *.safetensors or *.gguf files (weights in other formats must be converted first)"
            ),
        ));
    }
    Ok(safetensors.iter().map(String::as_str).collect())
}

fn open_shard(
    directory: &dyn Directory,
    name: &str,
    index: Option<&Index>,
) -> Result<Arc<dyn Blob>> {
    if let Some(index) = index
        && !directory.has(name)
        && let WeightMap { tensors, shards } = &index.weight_map
        && let Some((tensor, _)) = tensors.iter().find(|(_, shard)| shards[**shard] == name)
    {
        return Err(Error::of_tensor(
            Code::MissingShard,
            directory.location().join(name),
            tensor,
            "the index says it is in this shard, but there is no such file",
        )
        .with_hint("is the download complete?"));
    }
    directory.weights(name)
}

/// The tensors of `index`, if each is in the shard that it names. Copies in other shards are left out.
fn tensors_by_index(
    directory: &dyn Directory,
    index: Index,
    shards: &[Arc<Shard>],
    left_out: &mut Vec<LeftOut>,
) -> Result<IndexMap<Name, usize>> {
    let tensors = index.weight_map.tensors;
    let mut found: Vec<Option<usize>> = vec![None; tensors.len()];
    let mut copies = Vec::new();
    for (position, shard) in shards.iter().enumerate() {
        for name in shard.tensors.keys() {
            let Some(tensor) = tensors.get_index_of(name) else {
                let what = format!(
                    "tensor {name} in {}: the index does not name it",
                    shard.name
                );
                left_out.push(what.into());
                continue;
            };
            let mut copy = Some(position);
            if found[tensor].is_none() || tensors[tensor] == position {
                copy = found[tensor].replace(position);
            }
            copies.extend(copy.map(|copy| (tensor, copy)));
        }
    }
    for ((name, &named), found) in tensors.iter().zip(&found) {
        let problem = match found {
            Some(position) if *position == named => continue,
            Some(position) => format!("but it is in {}", shards[*position].name),
            None => "but the shard's header does not have it".to_owned(),
        };
        return Err(Error::of_tensor(
            Code::IndexMismatch,
            directory.location().join(&shards[named].name),
            name,
            format!("the index says it is in this shard, {problem}"),
        ));
    }
    for (tensor, copy) in copies {
        let (name, &named) = tensors.get_index(tensor).expect("a position in it");
        copies::leave_out(name, &shards[named], &shards[copy], left_out)?;
    }
    Ok(tensors)
}

/// The tensors of `shards`, each in the first that holds it. Copies in other shards are left out.
fn tensors_by_headers(
    shards: &[Arc<Shard>],
    left_out: &mut Vec<LeftOut>,
) -> Result<IndexMap<Name, usize>> {
    let mut tensors = IndexMap::new();
    for (position, shard) in shards.iter().enumerate() {
        for name in shard.tensors.keys() {
            let &mut first = tensors.entry(name.clone()).or_insert(position);
            if first != position {
                copies::leave_out(name, &shards[first], shard, left_out)?;
            }
        }
    }
    Ok(tensors)
}

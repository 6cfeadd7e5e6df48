//! GGUF files as a checkpoint: one file, or split files that belong together.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use super::header::{Header, TensorInfo};
use super::model::{Model, PlacedType};
use super::reading::read as read_header;
use super::split::{SplitName, split_name};
use super::tensor_type::TensorType;
use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Checkpoint, Container, LeftOut, Shard, StoredTensor};
use crate::source::{AuxFiles, Blob, Class, Directory};
use crate::tensor::{Dtype, Name};
use crate::text::listing;

/// How the names of such files end.
const EXTENSION: &str = ".gguf";
/// What the names of files have in them that hold the vision part of a model alone.
const PROJECTOR: &str = "mmproj";

/// Whether `name` is that of such a file.
pub(in crate::format) fn is_shard(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(EXTENSION.as_bytes())
}

/// Reads the checkpoint in `directory`, which has these `names`: one file, or one set of split files.
///
/// # Errors
/// If there is none or there are several, or the files are not valid or do not fit together.
pub(in crate::format) fn read(directory: &dyn Directory, names: &[OsString]) -> Result<Checkpoint> {
    let location = directory.location();
    let mut models: BTreeMap<String, String> = BTreeMap::new();
    let mut projectors = Vec::new();
    let mut class = |name: &OsStr| {
        if !is_shard(name) {
            return Class::Aux;
        }
        match name.to_str() {
            Some(name) if name.contains(PROJECTOR) => projectors.push(name.to_owned()),
            Some(name) => {
                let split = SplitName::parse(name);
                let stem = split.map_or_else(|| name.to_owned(), |split| split.stem);
                models.entry(stem).or_insert_with(|| name.to_owned());
            }
            None => return Class::LeftOut("its name is not valid UTF-8"),
        }
        Class::Weights
    };
    let AuxFiles { entries, left_out } = directory.aux(names, &mut class)?;
    let names: Vec<&str> = models.values().map(String::as_str).collect();
    let first = match names[..] {
        [first] => first,
        [] => {
            let problem = "no checkpoint here: the only GGUF files are of vision parts";
            return Err(Error::of_file(Code::NoCheckpoint, location, problem));
        }
        _ => {
            let problem = format!("there are several GGUF models here: {}", listing(&names));
            let error = Error::of_file(Code::NoCheckpoint, location, problem);
            return Err(error.with_hint("give the file of one of them"));
        }
    };
    let mut left_out: Vec<LeftOut> = left_out.into_iter().map(LeftOut::from).collect();
    for name in projectors {
        left_out.push(format!("{name}: the vision part of a model, which is not read").into());
    }
    let file = directory.weights(first)?;
    let checkpoint = files(file, location, &mut |name| directory.weights(name))?;
    Ok(Checkpoint {
        path: location.to_owned(),
        attributes: directory.attributes(),
        aux: entries,
        left_out,
        ..checkpoint
    })
}

/// Reads `file` as a checkpoint; of split files, `sibling` opens the others by their names.
///
/// # Errors
/// As [`read`].
pub(in crate::format) fn read_file(
    file: Arc<dyn Blob>,
    sibling: &mut dyn FnMut(&str) -> Result<Arc<dyn Blob>>,
) -> Result<Checkpoint> {
    let location = file.location().clone();
    files(file, &location, sibling)
}

fn files(
    file: Arc<dyn Blob>,
    checkpoint: &Path,
    sibling: &mut dyn FnMut(&str) -> Result<Arc<dyn Blob>>,
) -> Result<Checkpoint> {
    let split = file.location().file_name().and_then(OsStr::to_str);
    let split = split.and_then(SplitName::parse);
    let blobs = match &split {
        Some(split) => {
            let names = (1..=split.count).map(|n| split_name(&split.stem, n, split.count));
            let blobs = names.enumerate().map(|(i, name)| {
                if i as u32 + 1 == split.number {
                    return Ok(file.clone());
                }
                sibling(&name).map_err(|e| missing(&file, &name, &e))
            });
            blobs.collect::<Result<Vec<_>>>()?
        }
        None => vec![file],
    };
    let mut headers = Vec::with_capacity(blobs.len());
    for blob in &blobs {
        headers.push(read_header(&**blob)?);
    }
    check_split(&blobs, &headers)?;
    joined(blobs, headers, checkpoint)
}

fn missing(file: &Arc<dyn Blob>, name: &str, error: &Error) -> Error {
    let problem = format!("it is one of several split files, and {name} cannot be opened: {error}");
    let error = Error::of_file(Code::MissingShard, file.location(), problem);
    error.with_hint("is the download complete?")
}

/// Checks that each file says the same of how many there are as their names and tensors do.
fn check_split(blobs: &[Arc<dyn Blob>], headers: &[Header]) -> Result<()> {
    let total: usize = headers.iter().map(|header| header.tensors.len()).sum();
    for (number, (blob, header)) in blobs.iter().zip(headers).enumerate() {
        let expected = [
            ("split.count", blobs.len() as u64),
            ("split.no", number as u64),
            ("split.tensors.count", total as u64),
        ];
        for (key, expected) in expected {
            let found = match header.keys.get(key) {
                None if blobs.len() == 1 => continue,
                None => "missing".to_owned(),
                Some(value) if value.as_u64() == Some(expected) => continue,
                Some(value) => format!("{value:?}"),
            };
            let hint = match blobs.len() {
                1 => "give the files their names back: NAME-00001-of-00003.gguf",
                _ => "are all of these files of one download?",
            };
            let problem = format!("{key} is {found}, and should be {expected}");
            let error = Error::of_file(Code::IndexMismatch, blob.location(), problem);
            return Err(error.with_hint(hint));
        }
    }
    Ok(())
}

/// The files as one checkpoint at the path `checkpoint`.
fn joined(
    blobs: Vec<Arc<dyn Blob>>,
    headers: Vec<Header>,
    checkpoint: &Path,
) -> Result<Checkpoint> {
    let path: Arc<Path> = checkpoint.into();
    let file = blobs[0].clone();
    let mut keys = None;
    let mut types = IndexMap::new();
    let mut tensors = IndexMap::new();
    let mut shards = Vec::with_capacity(blobs.len());
    for (position, (blob, header)) in blobs.into_iter().zip(headers).enumerate() {
        let mut stored = IndexMap::with_capacity(header.tensors.len());
        for (name, info) in header.tensors {
            if tensors.insert(name.clone(), position).is_some() {
                let problem = "another of the split files has it, too";
                return Err(Error::of_tensor(
                    Code::IndexMismatch,
                    blob.location(),
                    &name,
                    problem,
                ));
            }
            stored.insert(name.clone(), as_stored(&info));
            let TensorInfo {
                tensor_type, shape, ..
            } = info;
            types.insert(name, PlacedType { tensor_type, shape });
        }
        keys.get_or_insert(header.keys);
        let name = blob.location().file_name().unwrap_or_default();
        shards.push(Arc::new(Shard {
            name: name.to_string_lossy().into_owned(),
            checkpoint: path.clone(),
            container: Container::Gguf,
            tensors: stored,
            blob,
        }));
    }
    Ok(Checkpoint {
        path: path.to_path_buf(),
        attributes: file.attributes(),
        shards,
        tensors,
        aux: Vec::new(),
        left_out: Vec::new(),
        notes: Vec::new(),
        gguf: Some(Arc::new(Model {
            keys: keys.unwrap_or_default(),
            types,
            file,
        })),
        training: None,
    })
}

/// The tensors of `file`, in the order of their offsets.
///
/// # Errors
/// As [`read_header`].
pub(in crate::format) fn stored_tensors(file: &dyn Blob) -> Result<IndexMap<Name, StoredTensor>> {
    let tensors = read_header(file)?.tensors.into_iter();
    Ok(tensors
        .map(|(name, info)| (name, as_stored(&info)))
        .collect())
}

/// A tensor as numbers of a plain dtype, or as rows of bytes.
fn as_stored(info: &TensorInfo) -> StoredTensor {
    let dtype = plain(info.tensor_type);
    let mut shape = info.shape.to_vec();
    if dtype.is_none() {
        let columns = shape.pop().unwrap_or(1);
        let bytes = info.tensor_type.row_bytes(columns);
        shape.push(bytes.expect("rows of whole blocks, as the header was checked for"));
    }
    StoredTensor::contiguous(dtype.unwrap_or(Dtype::U8), shape, info.offset, info.len)
}

/// The dtype of elements of a type that are plain numbers.
fn plain(tensor_type: TensorType) -> Option<Dtype> {
    const PLAIN: [(TensorType, Dtype); 8] = [
        (TensorType::F32, Dtype::F32),
        (TensorType::F16, Dtype::F16),
        (TensorType::BF16, Dtype::BF16),
        (TensorType::F64, Dtype::F64),
        (TensorType::I8, Dtype::I8),
        (TensorType::I16, Dtype::I16),
        (TensorType::I32, Dtype::I32),
        (TensorType::I64, Dtype::I64),
    ];
    let mut plain = PLAIN.into_iter();
    Some(plain.find(|(known, _)| *known == tensor_type)?.1)
}

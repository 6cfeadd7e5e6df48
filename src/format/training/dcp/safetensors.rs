//! Safetensors files of torch.distributed.checkpoint: the header has under `__metadata__`, as `DCP_SHARDING_INFO`, JSON that
//! says for each tensor where the piece in this file begins: `{name: {"saved_offsets": [0, 5]}}`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;
use regex::Regex;
use serde::Deserialize;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Container, Piece, StoredTensor};
use crate::format::safetensors::read_with_metadata;
use crate::format::training::files::{Files, is_state, unfinished};
use crate::jobs;
use crate::source::{Blob, Directory};
use crate::tensor::{Name, Shape};

const SHARDING_INFO: &str = "DCP_SHARDING_INFO";

/// `shard-R-model-I-of-N.safetensors`
static SHARD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^shard-([0-9]{5,9})-model-([0-9]{5,9})-of-([0-9]{5,9})\.safetensors$")
        .expect("a valid expression")
});

/// Whether `name` is that of a file of one rank, as torch's `HuggingFaceStorageWriter` calls them.
pub(in crate::format) fn is_shard_of_rank(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| SHARD.is_match(name))
}

/// The header of a file.
#[derive(Debug)]
pub(super) struct Header {
    tensors: IndexMap<Name, StoredTensor>,
    offsets: HashMap<String, Vec<u64>>,
}

impl Header {
    /// # Errors
    /// If it is not valid.
    pub(super) fn read(file: &dyn Blob) -> Result<Self> {
        #[derive(Deserialize)]
        struct Info {
            saved_offsets: Vec<u64>,
        }
        let (tensors, mut metadata) = read_with_metadata(file)?;
        let info: HashMap<String, Info> = match metadata.remove(SHARDING_INFO) {
            None => HashMap::new(),
            Some(text) => serde_json::from_str(&text).map_err(|e| {
                let problem = format!("{SHARDING_INFO} in its header is not valid: {e}");
                Error::of_file(Code::BadHeader, file.location(), problem)
            })?,
        };
        let offsets = info.into_iter();
        let offsets = offsets.map(|(name, info)| (name, info.saved_offsets));
        Ok(Header {
            tensors,
            offsets: offsets.collect(),
        })
    }

    /// The piece of the tensor `name`, and where it begins, if that is said.
    pub(super) fn piece(&self, name: &str) -> Option<(&StoredTensor, Option<&[u64]>)> {
        let offsets = self.offsets.get(name).map(Vec::as_slice);
        Some((self.tensors.get(name)?, offsets))
    }
}

/// The checkpoint in `directory`, which has these `names`.
///
/// # Errors
/// If a file is missing that others count, or headers do not fit together.
pub(in crate::format::training) fn read(
    directory: &dyn Directory,
    names: &[OsString],
) -> Result<Files> {
    let found: Vec<&str> = names
        .iter()
        .filter_map(|name| name.to_str())
        .filter(|name| SHARD.is_match(name))
        .collect();
    check_numbers(directory, &found)?;
    let headers = jobs::map(&found, jobs::processors(), |name| {
        let blob = directory.weights(name)?;
        let header = Header::read(&*blob)?;
        Ok((blob, header))
    })?;
    let mut ends: HashMap<Name, Vec<u64>> = HashMap::new();
    for (blob, header) in &headers {
        for (name, stored) in &header.tensors {
            let offsets = offsets(&**blob, header, name, stored)?;
            let of_piece = offsets.iter().zip(&*stored.shape);
            let of_piece = of_piece.map(|(offset, len)| offset.saturating_add(*len));
            let end = ends.entry(name.clone()).or_default();
            end.resize(end.len().max(offsets.len()), 0);
            for (end, of_piece) in end.iter_mut().zip(of_piece) {
                *end = of_piece.max(*end);
            }
        }
    }
    let shapes = ends.into_iter();
    let shapes: HashMap<Name, Shape> = shapes.map(|(name, end)| (name, end.into())).collect();
    let mut files = Files::new(Container::Safetensors);
    let mut state = Vec::new();
    for (name, (blob, header)) in found.iter().zip(&headers) {
        let shard = files.file(name, blob.clone());
        for (name, stored) in &header.tensors {
            if is_state(name) {
                state.push(name.clone());
                continue;
            }
            let offsets = offsets(&**blob, header, name, stored)?;
            let piece = Piece {
                shard,
                offsets: Arc::from(offsets),
                stored: stored.clone(),
            };
            files.own_piece(name, (stored.dtype, &shapes[name]), piece)?;
        }
    }
    files.not_read("saved value", state.iter().map(|name| &**name));
    Ok(files)
}

/// Where the piece `stored` of the tensor `name` begins.
fn offsets<'a>(
    blob: &dyn Blob,
    header: &'a Header,
    name: &str,
    stored: &StoredTensor,
) -> Result<&'a [u64]> {
    let offsets = header.offsets.get(name);
    let offsets = offsets.filter(|offsets| offsets.len() == stored.shape.len());
    let offsets = offsets.map(Vec::as_slice);
    offsets.ok_or_else(|| {
        let problem = format!("{SHARDING_INFO} in the header does not say where its piece begins");
        Error::of_tensor(Code::BadPieces, blob.location(), name, problem)
    })
}

/// Checks that of each file that others count there is one.
fn check_numbers(directory: &dyn Directory, names: &[&str]) -> Result<()> {
    let path = directory.location();
    let numbers = names.iter().filter_map(|name| SHARD.captures(name));
    let numbers: Vec<[u64; 3]> = numbers
        .map(|found| [1, 2, 3].map(|i| found[i].parse().unwrap_or(0)))
        .collect();
    let count = numbers.first().map_or(0, |&[_, _, count]| count);
    if numbers.iter().any(|&[_, _, other]| other != count) {
        let problem = "its files are of checkpoints with different numbers of files";
        return Err(Error::of_file(Code::BadPieces, path, problem));
    }
    let missing = (1..=count).find(|file| !numbers.iter().any(|[_, other, _]| other == file));
    match missing {
        Some(missing) => {
            let problem =
                format!("no shard-*-model-{missing:05}-of-{count:05}.safetensors is there");
            Err(unfinished(path, problem))
        }
        None => Ok(()),
    }
}

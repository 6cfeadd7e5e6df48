//! torch.distributed.checkpoint: every rank writes the pieces that it has into files of its own. Megatron-Core's `torch_dist`
//! is the same with names of its own.
//!
//! | form | files |
//! |---|---|
//! | `.distcp` | `.metadata`, a pickle that says which pieces a tensor has and where they are, and `__R_N.distcp`, in which each piece is a whole file of `torch.save` |
//! | the same in safetensors | `.metadata`, and `__R_N.distcp` that are safetensors files |
//! | Hugging Face | `shard-R-model-I-of-N.safetensors`, without `.metadata`; headers say where pieces begin |
//!
//! Source: `torch/distributed/checkpoint/{metadata,filesystem,hf_storage}.py` of torch 2.13.
//!
//! | file | about |
//! |---|---|
//! | `chunks.rs` | the pieces in `.distcp` files |
//! | `metadata.rs` | `.metadata` |
//! | `safetensors.rs` | the form of Hugging Face |
//! | `window.rs` | a part of a file as one of its own |

mod chunks;
mod metadata;
mod safetensors;
mod window;

use std::ffi::OsString;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::Container;
use crate::format::training::files::{Files, unfinished};
use crate::jobs;
use crate::source::Directory;

pub(in crate::format) use safetensors::is_shard_of_rank;
pub(super) use safetensors::read as read_safetensors;

const METADATA: &str = ".metadata";

/// Whether `name` is one by which such a checkpoint is known.
pub(super) fn is_file(name: &str) -> bool {
    name == METADATA || name.ends_with(".distcp")
}

/// The checkpoint in `directory`, which has these `names`.
///
/// # Errors
/// If it is not complete, or `.metadata` does not say where all tensors are.
pub(super) fn read(directory: &dyn Directory, names: &[OsString]) -> Result<Files> {
    let path = directory.location();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if !has(METADATA) {
        let is_of_rank = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("__") && name.ends_with(METADATA)
        };
        if names.iter().any(is_of_rank) {
            let problem = "every rank wrote metadata of its own, and there is no .metadata of all";
            let error = Error::of_file(Code::UnsupportedTorch, path, problem);
            return Err(error.with_hint("save it with FileSystemWriter of torch"));
        }
        let problem = "there are .distcp files and no .metadata, which is written last (many copying programs leave out files whose names begin with a dot)";
        return Err(unfinished(path, problem));
    }
    let metadata = metadata::read(&*directory.weights(METADATA)?)?;
    let mut files = Files::new(Container::Distcp);
    let mut blobs = Vec::new();
    for name in &metadata.files {
        if !directory.has(name) {
            let problem = format!(".metadata says that tensors are in {name}, which is not there");
            return Err(unfinished(path, problem));
        }
        let blob = directory.weights(name)?;
        let shard = files.file(name, blob.clone());
        blobs.push((shard, blob));
    }
    let by_file = metadata.by_file();
    let read = jobs::map(&blobs, jobs::processors(), |(shard, blob)| {
        chunks::read(*shard, blob, &metadata.tensors, &by_file[*shard])
    })?;
    for (tensor, piece) in read.into_iter().flatten() {
        let tensor = &metadata.tensors[tensor];
        files.own_piece(&tensor.name, (tensor.dtype, &tensor.shape), piece)?;
    }
    for tensor in &metadata.tensors {
        if tensor.chunks.is_empty() {
            files.without_elements(&tensor.name, (tensor.dtype, &tensor.shape));
        }
    }
    files.not_read("saved value", metadata.not_read.iter().map(|name| &**name));
    Ok(files)
}

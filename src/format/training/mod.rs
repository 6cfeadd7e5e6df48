//! Checkpoints as training programs write them: every rank saves its part, so that a tensor is in pieces in several
//! files, under names of the program's own. What is read here is tables; `ops/training` makes tensors of the pieces and gives
//! them the names of Hugging Face.
//!
//! | file or folder | about |
//! |---|---|
//! | `files.rs` | the files and pieces while they are collected |
//! | `dcp/` | torch.distributed.checkpoint: `.metadata` and `.distcp`, or safetensors |
//! | `deepspeed/` | DeepSpeed's ZeRO 1, 2 and 3 |
//! | `find.rs` | which of them a directory has, and where |
//! | `meta.rs` | `consolidated.NN.pth` |
//! | `ranks/` | a file of `torch.save` for each rank |

mod dcp;
mod deepspeed;
mod files;
mod find;
mod meta;
mod ranks;

use std::ffi::OsString;

use crate::error::Result;
use crate::format::checkpoint::Checkpoint;
use crate::source::Directory;

pub(super) use dcp::is_shard_of_rank;

/// The training checkpoint in `directory`, which has these `names`, if there is one.
///
/// # Errors
/// If it is not complete, or its files do not agree with each other.
pub(super) fn read(directory: &dyn Directory, names: &[OsString]) -> Result<Option<Checkpoint>> {
    let Some(found) = find::find(directory, names)? else {
        return Ok(None);
    };
    let place = found.place(directory);
    let files = match found.form {
        find::Form::Dcp => dcp::read(place, &found.names)?,
        find::Form::DcpSafetensors => dcp::read_safetensors(place, &found.names)?,
        find::Form::Ranks => ranks::read(place, &found.names)?,
        find::Form::DeepSpeed => deepspeed::read(place, &found.names)?,
        find::Form::Meta => meta::read(place, &found.names)?,
    };
    files.checkpoint(directory, found.aux(directory)?).map(Some)
}

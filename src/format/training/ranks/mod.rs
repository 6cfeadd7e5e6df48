//! `model_world_size_W_rank_R.pt`, as verl and SkyRL write them with FSDP2: each rank saves its own `state_dict()`, in which
//! tensors that are spread over ranks are distributed tensors of torch, and all others are whole and alike.
//!
//! | file | about |
//! |---|---|
//! | `dtensor.rs` | distributed tensors, as a pickle describes them |
//! | `placement.rs` | which part of a tensor a rank has |

mod dtensor;
mod placement;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;
use regex::Regex;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Container, Piece, StoredTensor};
use crate::format::torch;
use crate::format::training::files::{Files, is_state, unfinished};
use crate::format::training::ranks::dtensor::{Distributed, distributed};
use crate::format::training::ranks::placement::part;
use crate::jobs;
use crate::source::{Blob, Directory};
use crate::tensor::{Name, Shape, shape_text};

static FILE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^model_world_size_([0-9]{1,7})_rank_([0-9]{1,7})\.pt$")
        .expect("a valid expression")
});

/// Whether `name` is one by which such a checkpoint is known.
pub(super) fn is_file(name: &str) -> bool {
    FILE.is_match(name)
}

/// What a rank has saved under a name.
#[derive(Debug)]
struct Saved {
    stored: StoredTensor,
    /// Of which tensor it is a part, and how; nothing if it is the whole.
    of: Option<Distributed>,
}

/// The checkpoint in `directory`, which has these `names`.
///
/// # Errors
/// If the file of a rank is missing, or files do not fit together.
pub(super) fn read(directory: &dyn Directory, names: &[OsString]) -> Result<Files> {
    let found = files(directory, names)?;
    let read = jobs::map(&found, jobs::processors(), |(rank, name)| {
        let blob = directory.weights(name)?;
        let saved = saved(&*blob, *rank)?;
        Ok((blob, saved))
    })?;
    let mut sizes: HashMap<Name, Vec<u64>> = HashMap::new();
    let coordinates = read.iter().flat_map(|(_, saved)| saved);
    for (name, saved) in coordinates {
        if let Some(of) = &saved.of {
            let sizes = sizes.entry(name.clone()).or_default();
            sizes.resize(sizes.len().max(of.coordinates.len()), 1);
            for (size, at) in sizes.iter_mut().zip(&of.coordinates) {
                *size = (*at + 1).max(*size);
            }
        }
    }
    let mut files = Files::new(Container::Torch);
    let mut state = Vec::new();
    for ((_, file), (blob, saved)) in found.iter().zip(read) {
        let shard = files.file(file, blob);
        for (name, Saved { stored, of }) in saved {
            if is_state(&name) {
                state.push(name);
                continue;
            }
            let refuse = |problem: String| {
                let path = files.location(shard);
                Error::of_tensor(Code::BadPieces, path, &*name, problem)
            };
            let (shape, offsets) = match &of {
                None => (stored.shape.clone(), vec![0; stored.shape.len()]),
                Some(of) => {
                    let (offsets, lens) =
                        part(&of.shape, &of.placements, &of.coordinates, &sizes[&name]);
                    if lens != *stored.shape {
                        let problem = format!(
                            "the part of this rank should be {}, and is {}",
                            shape_text(&lens),
                            shape_text(&stored.shape)
                        );
                        return Err(refuse(problem));
                    }
                    (Shape::from(&of.shape[..]), offsets)
                }
            };
            let dtype = stored.dtype;
            let offsets = Arc::from(offsets);
            let piece = Piece {
                shard,
                offsets,
                stored,
            };
            files.own_piece(&name, (dtype, &shape), piece)?;
        }
    }
    state.sort_unstable();
    state.dedup();
    files.not_read("saved value", state.iter().map(|name| &**name));
    Ok(files)
}

/// The files, by their ranks.
fn files(directory: &dyn Directory, names: &[OsString]) -> Result<Vec<(u64, String)>> {
    let path = directory.location();
    let names = names.iter().filter_map(|name| name.to_str());
    let mut found = Vec::new();
    let mut size = None;
    for (name, numbers) in names.filter_map(|name| Some((name, FILE.captures(name)?))) {
        let [of, rank] = [1, 2].map(|i| numbers[i].parse::<u64>().expect("seven digits"));
        if *size.get_or_insert(of) != of {
            let problem = "it has files of checkpoints with different numbers of ranks";
            return Err(Error::of_file(Code::BadPieces, path, problem));
        }
        found.push((rank, name.to_owned()));
    }
    found.sort_unstable();
    let size = size.unwrap_or(0);
    let mut ranks = found.iter().map(|&(rank, _)| rank);
    if let Some(missing) = (0..size).find(|&rank| ranks.next() != Some(rank)) {
        let problem = format!("the file of rank {missing} of {size} is missing");
        return Err(unfinished(path, problem));
    }
    Ok(found)
}

/// What `file` of the rank `rank` has saved.
fn saved(file: &dyn Blob, rank: u64) -> Result<IndexMap<Name, Saved>> {
    let saved = torch::open(file)?;
    let pickle = &saved.pickle;
    let mut tensors = saved.tensors();
    let mut found = IndexMap::new();
    for (name, id) in torch::entries(&saved)?.named {
        let refuse = |problem: String| {
            Error::of_tensor(Code::UnsupportedTorch, file.location(), name, problem)
        };
        if name.ends_with("_flat_param") || name.ends_with(".flat_param") {
            let problem = "FSDP1 has put many parameters into this one, and does not say which";
            let hint = "save it with FSDP2, or with the state dict type SHARDED_STATE_DICT";
            return Err(refuse(problem.to_owned()).with_hint(hint));
        }
        let (id, of) = match distributed(pickle, id, rank).map_err(refuse)? {
            None => (id, None),
            Some((local, of)) => (local, Some(of)),
        };
        if let Some(stored) = tensors.find(name, id)? {
            found.insert(name.into(), Saved { stored, of });
        } else if of.is_some() {
            return Err(refuse("the part of this rank is no tensor".to_owned()));
        }
    }
    Ok(found)
}

//! DeepSpeed's ZeRO: parameters are cut out of flat vectors of f32, of which each rank has a part.
//!
//! | stage | model states | optimizer states |
//! |---|---|---|
//! | 1, 2 | `mp_rank_00_model_states.pt`, with all parameters in 16 bits | a file for each rank; for each group, the parts of all ranks are one vector, which has the parameters one after the other |
//! | 3 | `zero_pp_rank_R_mp_rank_00_model_states.pt`, without them | a file for each rank; each has ⌈n/W⌉ elements of each parameter of n, all at one place in it |
//!
//! Parameters that are trained come from the f32 vectors; frozen ones and buffers from model states, where ZeRO 1 has
//! frozen ones among all others alone. Of optimizer states nothing else is read. Source:
//! `deepspeed/utils/zero_to_fp32.py` of DeepSpeed 0.18, which leaves out what ZeRO 1 did not train, and files that 0.19 wrote.
//!
//! | file | about |
//! |---|---|
//! | `flat.rs` | vectors, and parameters cut out of them |
//! | `states.rs` | what the two kinds of files say |

mod flat;
mod states;

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Container, Piece, StoredTensor};
use crate::format::training::deepspeed::flat::{Flat, cut, cut_alike};
use crate::format::training::deepspeed::states::{ModelStates, OptimizerStates};
use crate::format::training::files::{Files, unfinished};
use crate::jobs;
use crate::source::{Blob, Directory};
use crate::tensor::{Dtype, Name, Shape, byte_len};

/// The rank, if there is one for each; the rank of model parallelism; what the file has.
static FILE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^(?:bf16_)?(?:zero_pp_rank_([0-9]{1,7})_)?mp_rank_([0-9]{1,7})_(model|optim)_states\.pt$",
    )
    .expect("a valid expression")
});

/// Whether `name` is one by which such a checkpoint is known.
pub(super) fn is_file(name: &str) -> bool {
    FILE.is_match(name)
}

/// The files by their ranks, each rank once.
#[derive(Debug, Default)]
struct Names {
    model: Vec<(u64, String)>,
    optimizer: Vec<(u64, String)>,
    /// Whether every rank has model states.
    is_stage_3: bool,
}

/// The checkpoint in `directory`, which has these `names`.
///
/// # Errors
/// If it is not complete, of more than data parallelism, or files do not fit together.
pub(super) fn read(directory: &dyn Directory, names: &[OsString]) -> Result<Files> {
    let path = directory.location();
    let names = find(directory, names)?;
    let mut files = Files::new(Container::Torch);
    let mut blobs = Vec::new();
    let model_files = match names.is_stage_3 {
        true => &names.model[..],
        // Of parallel ranks they are alike.
        false => &names.model[..1],
    };
    for (_, name) in model_files {
        let blob = directory.weights(name)?;
        let shard = files.file(name, blob.clone());
        blobs.push((shard, blob));
    }
    let whole = names.optimizer.is_empty();
    let models = jobs::map(&blobs, jobs::processors(), |(_, blob)| {
        ModelStates::read(&**blob, names.is_stage_3)
    })?;
    if whole {
        if names.is_stage_3 {
            let problem = "it has no *_optim_states.pt, in which the parameters of ZeRO 3 are";
            return Err(unfinished(path, problem));
        }
        whole_module(&mut files, &models[0])?;
        return Ok(files);
    }
    let mut blobs: Vec<(usize, Arc<dyn Blob>)> = Vec::new();
    for (_, name) in &names.optimizer {
        let blob = directory.weights(name)?;
        let shard = files.file(name, blob.clone());
        blobs.push((shard, blob));
    }
    let optimizers = jobs::map(&blobs, jobs::processors(), |(shard, blob)| {
        OptimizerStates::read(&**blob, *shard)
    })?;
    let ranks = optimizers.len() as u64;
    for states in &optimizers {
        let stage = states.stage;
        let expected = states.ranks.unwrap_or(ranks);
        let at = files.location(states.shard);
        if expected != ranks {
            let problem = format!(
                "it says that there are {expected} ranks, and there are {ranks} files like it"
            );
            return Err(unfinished(at, problem));
        }
        if (stage == 3) != names.is_stage_3 || !(1..=3).contains(&stage) {
            let problem = format!(
                "it says that it is of stage {stage}, and the files are not of such a checkpoint"
            );
            return Err(Error::of_file(Code::BadPieces, at, problem));
        }
        for (name, vector) in states.vectors() {
            files.holds(states.shard, &name, vector);
        }
    }
    let shapes = models[0].shapes.as_ref().ok_or_else(|| {
        let problem = "it has no param_shapes, by which parameters are cut out of vectors; DeepSpeed before 0.4.1 did not write them";
        Error::of_file(Code::UnsupportedTorch, files.location(0), problem)
    })?;
    trained(&mut files, path, shapes, &optimizers, names.is_stage_3)?;
    frozen(&mut files, path, &models, names.is_stage_3)?;
    others(&mut files, &models[0], names.is_stage_3)?;
    Ok(files)
}

fn find(directory: &dyn Directory, names: &[OsString]) -> Result<Names> {
    let path = directory.location();
    let mut found = Names::default();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let refuse = |what: &str| {
            let problem = format!("{name} is of {what}, and only data parallelism (ZeRO) is read");
            Err(Error::of_file(Code::UnsupportedTorch, path, problem))
        };
        if name.starts_with("layer_") && name.ends_with("model_states.pt") {
            return refuse("pipeline or expert parallelism");
        }
        let Some(parts) = FILE.captures(name) else {
            continue;
        };
        let number = |i| {
            parts
                .get(i)
                .map(|n| n.as_str().parse::<u64>().expect("seven digits"))
        };
        if number(2) != Some(0) {
            return refuse("tensor parallelism");
        }
        let rank = number(1);
        match &parts[3] {
            "model" => {
                found.is_stage_3 |= rank.is_some();
                found.model.push((rank.unwrap_or(0), name.to_owned()));
            }
            _ => found.optimizer.push((rank.unwrap_or(0), name.to_owned())),
        }
    }
    for (files, what) in [(&mut found.model, "model"), (&mut found.optimizer, "optim")] {
        files.sort_unstable();
        let mut ranks = files.iter().map(|&(rank, _)| rank);
        let missing = (0..files.len() as u64).find(|&rank| ranks.next() != Some(rank));
        if let Some(missing) = missing {
            let problem = format!("there is not one *_{what}_states.pt of rank {missing}");
            return Err(unfinished(path, problem));
        }
    }
    let ranks = found.optimizer.len();
    if found.model.is_empty() || found.is_stage_3 && ranks > 0 && found.model.len() != ranks {
        let problem = format!(
            "there are {} files *_model_states.pt and {ranks} files *_optim_states.pt",
            found.model.len()
        );
        return Err(unfinished(path, problem));
    }
    Ok(found)
}

/// The parameters in 16 bits, where there are no others.
fn whole_module(files: &mut Files, model: &ModelStates) -> Result<()> {
    for (name, stored) in &model.module {
        whole(files, name, stored)?;
    }
    let note = "there are no *_optim_states.pt: the tensors are those of model states, in 16 bits if the model was trained so";
    files.notes.push(note.to_owned());
    Ok(())
}

/// Adds the tensor `stored` of the first file, whole.
fn whole(files: &mut Files, name: &Name, stored: &StoredTensor) -> Result<()> {
    let piece = Piece {
        shard: 0,
        offsets: vec![0; stored.shape.len()].into(),
        stored: stored.clone(),
    };
    files.own_piece(name, (stored.dtype, &stored.shape), piece)
}

/// The parameters that are cut out of the vectors of all ranks.
fn trained(
    files: &mut Files,
    path: &Path,
    shapes: &[Vec<(Name, Shape)>],
    optimizers: &[OptimizerStates],
    is_stage_3: bool,
) -> Result<()> {
    if is_stage_3 {
        let ranks: Vec<Flat> = optimizers
            .iter()
            .map(|states| Flat::new(states.shard, &states.groups))
            .collect();
        let shapes: Vec<&(Name, Shape)> = shapes.iter().flatten().collect();
        return cut_alike(files, path, &shapes, Dtype::F32, &ranks);
    }
    let groups = optimizers.iter().map(|states| states.groups.len());
    if groups.clone().any(|count| count != shapes.len()) {
        let problem =
            "model states have another number of groups of parameters than optimizer states";
        return Err(Error::of_file(Code::BadPieces, path, problem));
    }
    for (group, shapes) in shapes.iter().enumerate() {
        let ranks: Vec<Flat> = optimizers
            .iter()
            .map(|states| Flat::new(states.shard, &states.groups[group..=group]))
            .collect();
        cut(files, path, shapes, &ranks)?;
    }
    Ok(())
}

/// The parameters that were not trained.
fn frozen(files: &mut Files, path: &Path, models: &[ModelStates], is_stage_3: bool) -> Result<()> {
    for (name, shape) in &models[0].frozen_shapes {
        let missing = || {
            let problem = "it was not trained, and a rank does not have its part";
            Error::of_tensor(Code::BadPieces, path, &**name, problem)
        };
        let mut parts = Vec::new();
        for (shard, model) in models.iter().enumerate() {
            let stored = model.frozen.get(name).ok_or_else(missing)?;
            files.holds(shard, name, stored);
            parts.push(Flat::new(shard, std::slice::from_ref(stored)));
        }
        let dtype = parts[0].dtype().ok_or_else(missing)?;
        let wanted = (name.clone(), shape.clone());
        match is_stage_3 {
            true => cut_alike(files, path, &[&wanted], dtype, &parts)?,
            false => {
                let stored = &models[0].frozen[name];
                let has = stored.shape == *shape || byte_len(dtype, shape) == Some(stored.len);
                if !has {
                    return Err(missing());
                }
                cut_alike(files, path, &[&wanted], dtype, &parts[..1])?;
            }
        }
    }
    Ok(())
}

/// Parameters that are others, buffers, and what else is only in `module`: what ZeRO 1 did not train.
fn others(files: &mut Files, model: &ModelStates, is_stage_3: bool) -> Result<()> {
    for (name, other) in &model.shared {
        files.same(name, other);
    }
    for (name, stored) in &model.module {
        if (!is_stage_3 || model.buffers.contains(&**name)) && !files.has(name) {
            whole(files, name, stored)?;
        }
    }
    Ok(())
}

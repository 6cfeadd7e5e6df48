//! What model states and optimizer states say: pickles of dictionaries, of which a few keys are read.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::StoredTensor;
use crate::format::torch::pickle::{Id, Pickle};
use crate::format::torch::{self, Saved};
use crate::shown::Show;
use crate::source::Blob;
use crate::tensor::{Name, Shape};

/// The longest name of a tensor, in bytes.
const MAX_NAME: usize = 1024;

/// `*_model_states.pt`.
#[derive(Debug, Default)]
pub(super) struct ModelStates {
    /// `param_shapes`: for each group of parameters that are trained together.
    pub(super) shapes: Option<Vec<Vec<(Name, Shape)>>>,
    /// `module`: of ZeRO 3, where parameters are empty in it, buffers alone.
    pub(super) module: IndexMap<Name, StoredTensor>,
    /// `buffer_names`.
    pub(super) buffers: HashSet<String>,
    /// `shared_params`: a parameter, and the other that it is.
    pub(super) shared: Vec<(Name, Name)>,
    /// `frozen_param_shapes` and `frozen_param_fragments`.
    pub(super) frozen_shapes: Vec<(Name, Shape)>,
    pub(super) frozen: IndexMap<Name, StoredTensor>,
}

/// `*_optim_states.pt`.
#[derive(Debug)]
pub(super) struct OptimizerStates {
    /// The number of the file.
    pub(super) shard: usize,
    pub(super) stage: u64,
    /// `partition_count`.
    pub(super) ranks: Option<u64>,
    key: &'static str,
    /// The vector of each group.
    pub(super) groups: Vec<StoredTensor>,
}

fn damaged(file: &dyn Blob, problem: String) -> Error {
    let problem = problem.shown().to_string();
    Error::of_file(Code::BadTorchFile, file.location(), problem)
}

/// A name, if it is one that tensors have.
fn name(pickle: &Pickle, id: Id) -> Option<Name> {
    let text = pickle.text(id).filter(|text| text.len() <= MAX_NAME)?;
    Some(text.into())
}

impl ModelStates {
    /// Reads `file`, of a checkpoint that `is_stage_3` or not.
    ///
    /// # Errors
    /// If what parameters are cut by is of another form.
    pub(super) fn read(file: &dyn Blob, is_stage_3: bool) -> Result<Self> {
        let saved = torch::open(file)?;
        let Saved { pickle, .. } = &saved;
        let root = pickle.root();
        let mut states = ModelStates::default();
        let refuse = |key: &str| damaged(file, format!("its {key} is not what DeepSpeed writes"));
        if let Some(groups) = pickle.entry(root, "param_shapes") {
            // One dictionary, in older versions.
            let one = [groups];
            let groups = pickle.list(groups).unwrap_or(&one);
            let shapes = groups.iter().map(|&group| shapes(pickle, group));
            let shapes = shapes.collect::<Option<_>>();
            states.shapes = Some(shapes.ok_or_else(|| refuse("param_shapes"))?);
        }
        if let Some(buffers) = pickle.entry(root, "buffer_names") {
            let buffers = pickle.list(buffers).unwrap_or_default().iter();
            let buffers = buffers.filter_map(|&id| pickle.text(id));
            states.buffers = buffers
                .filter(|name| name.len() <= MAX_NAME)
                .map(str::to_owned)
                .collect();
        }
        states.frozen_shapes = match pickle.entry(root, "frozen_param_shapes") {
            Some(frozen) => shapes(pickle, frozen).unwrap_or_default(),
            None => Vec::new(),
        };
        let shared = pickle.entry(root, "shared_params");
        let shared = shared.and_then(|id| pickle.items(id)).unwrap_or_default();
        for (key, value) in shared {
            let pair = name(pickle, key).zip(name(pickle, value));
            states
                .shared
                .push(pair.ok_or_else(|| refuse("shared_params"))?);
        }
        let buffers = &states.buffers;
        let is_wanted = |name: &str| !is_stage_3 || buffers.contains(name);
        let module = tensors(&saved, "module", is_wanted)?;
        let frozen = tensors(&saved, "frozen_param_fragments", |_| true)?;
        states.module = module;
        states.frozen = frozen;
        Ok(states)
    }
}

/// A stage of ZeRO: a number, or a member of DeepSpeed's `ZeroStageEnum`, which is made of its number.
fn stage(pickle: &Pickle, id: Id) -> Option<u64> {
    match pickle.call(id) {
        Some(((_, "ZeroStageEnum"), &[number])) => pickle.count(number),
        _ => pickle.count(id),
    }
}

/// The tensors in the dictionary that is the entry `key`.
fn tensors(
    saved: &Saved,
    key: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<IndexMap<Name, StoredTensor>> {
    let pickle = &saved.pickle;
    let items = pickle.entry(pickle.root(), key);
    let items = items.and_then(|id| pickle.items(id)).unwrap_or_default();
    let mut tensors = saved.tensors();
    let mut found = IndexMap::new();
    for (key, value) in items {
        if let Some(name) = name(pickle, key)
            && is_wanted(&name)
            && let Some(stored) = tensors.find(&name, value)?
        {
            found.insert(name, stored);
        }
    }
    Ok(found)
}

/// Names and shapes in a dictionary.
fn shapes(pickle: &Pickle, id: Id) -> Option<Vec<(Name, Shape)>> {
    let items = pickle.items(id)?.into_iter();
    let shapes = items.map(|(key, value)| {
        let shape = pickle.counts(value)?;
        Some((name(pickle, key)?, shape.into()))
    });
    let all: Vec<(Name, Shape)> = shapes.collect::<Option<_>>()?;
    let mut seen = HashSet::new();
    all.iter()
        .all(|(name, _)| seen.insert(name.clone()))
        .then_some(all)
}

impl OptimizerStates {
    /// Reads `file`, which is number `shard`.
    ///
    /// # Errors
    /// If it does not have the vectors of f32.
    pub(super) fn read(file: &dyn Blob, shard: usize) -> Result<Self> {
        let saved = torch::open(file)?;
        let pickle = &saved.pickle;
        let states = pickle.entry(pickle.root(), "optimizer_state_dict");
        let states =
            states.ok_or_else(|| damaged(file, "it has no optimizer_state_dict".to_owned()))?;
        let stage = pickle.entry(states, "zero_stage");
        let unsupported = |found: String| {
            let problem = format!("{found}: only checkpoints of ZeRO 1, 2 and 3 are read");
            Error::of_file(Code::UnsupportedTorch, file.location(), problem)
        };
        let stage = stage.ok_or_else(|| unsupported("it has no zero_stage".to_owned()))?;
        let stage = self::stage(pickle, stage).ok_or_else(|| {
            let kind = pickle.kind(stage).shown().to_string();
            unsupported(format!("its zero_stage is {kind}"))
        })?;
        // One for each group, in some versions.
        let ranks = match pickle.entry(states, "partition_count") {
            None => None,
            Some(count) => match pickle.counts(count) {
                Some(counts) => counts.into_iter().max(),
                None => pickle.count(count),
            },
        };
        let key = match stage {
            3 => "fp32_flat_groups",
            _ => "single_partition_of_fp32_groups",
        };
        let groups = pickle.entry(states, key);
        let groups = groups.and_then(|id| pickle.list(id));
        let groups = groups.ok_or_else(|| damaged(file, format!("it has no list {key}")))?;
        let mut tensors = saved.tensors();
        let mut vectors = Vec::with_capacity(groups.len());
        for (i, &group) in groups.iter().enumerate() {
            let vector = tensors.find(&format!("{key}.{i}"), group)?;
            let vector =
                vector.filter(|vector| vector.shape.len() == 1 && vector.strides.is_none());
            vectors.push(
                vector.ok_or_else(|| damaged(file, format!("number {i} of {key} is no vector")))?,
            );
        }
        Ok(OptimizerStates {
            shard,
            stage,
            ranks,
            key,
            groups: vectors,
        })
    }

    /// Its vectors by name.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (String, &StoredTensor)> {
        let vectors = self.groups.iter().enumerate();
        vectors.map(|(i, vector)| (format!("{}.{i}", self.key), vector))
    }
}

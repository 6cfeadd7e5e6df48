//! The figures of a view: how many tensors come about how, and what its files are. The plan, its
//! JSON and the report all show these.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::path::Path;

use indexmap::IndexMap;
use serde::Serialize;

use crate::catalog::{Role, SourceReport};
use crate::layout::PlannedTensor;
use crate::provenance::Lineage;
use crate::recipe::Plan;
use crate::view::EntryId;

/// What becomes of a tensor. Every tensor of a view has one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// A whole tensor of the base, or of a model of a merge: the same dtype, shape and bytes, maybe
    /// under another name.
    Kept,
    /// The same of an extra.
    Added,
    /// The result of operators.
    Changed,
    /// FP8 scales that this view computes. Scales that a source has are tensors like all others.
    Scales,
}

/// Tensors and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Count {
    pub tensors: usize,
    pub bytes: u64,
}

/// Changed tensors that the same operators make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedBy {
    /// In the order in which they are applied.
    pub operators: Vec<&'static str>,
    #[serde(flatten)]
    pub count: Count,
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FileCount {
    pub files: usize,
    pub bytes: u64,
}

/// The tensors of a view by their fate, and its files: `total` is the sum of `kept`, `added`, `changed` and
/// `scales`, and `changed` that of `changed_by`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub total: Count,
    pub kept: Count,
    pub added: Count,
    pub changed: Count,
    pub changed_by: Vec<ChangedBy>,
    pub scales: Count,
    /// What the view starts from: all tensors of the base or of the models that are merged, and the
    /// tensors that are taken from extras.
    pub before: Count,
    pub shards: FileCount,
    /// Index, config, tokenizer and all else that is not a shard.
    pub other_files: FileCount,
    /// Files of both kinds that are whole source files.
    pub whole_files: FileCount,
}

impl Counts {
    /// The counts of `plan`'s view; `lineages` are those of its tensors, in order.
    pub fn of<L: Borrow<Lineage>>(plan: &Plan, lineages: impl IntoIterator<Item = L>) -> Self {
        let (mut kept, mut added) = (Count::default(), Count::default());
        let mut scales = Count::default();
        let mut changed_by: IndexMap<Vec<&'static str>, Count> = IndexMap::new();
        let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
        for (tensor, lineage) in tensors.zip(lineages) {
            let lineage = lineage.borrow();
            match Fate::of(plan, tensor, lineage) {
                Fate::Kept => kept.add(tensor.len),
                Fate::Added => added.add(tensor.len),
                Fate::Scales => scales.add(tensor.len),
                Fate::Changed => changed_by
                    .entry(operators(plan, lineage))
                    .or_default()
                    .add(tensor.len),
            }
        }
        let changed = changed_by.values().copied().sum();
        let sources = plan.report.sources.iter();
        let (mut shards, mut other_files) = (FileCount::default(), FileCount::default());
        let mut whole_files = FileCount::default();
        let entries: HashSet<EntryId> = plan.shards.iter().map(|shard| shard.entry).collect();
        for (entry, _, content) in plan.view.files() {
            match entries.contains(&entry) {
                true => shards.add(content.len()),
                false => other_files.add(content.len()),
            }
            if content.whole_file().is_some() {
                whole_files.add(content.len());
            }
        }
        Counts {
            total: [kept, added, changed, scales].into_iter().sum(),
            kept,
            added,
            changed,
            changed_by: changed_by
                .into_iter()
                .map(|(operators, count)| ChangedBy { operators, count })
                .collect(),
            scales,
            before: sources.map(taken).sum(),
            shards,
            other_files,
            whole_files,
        }
    }

    /// The same where lineages are of no other use; they are not kept.
    pub fn of_plan(plan: &Plan) -> Self {
        let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
        Counts::of(
            plan,
            tensors.map(|tensor| Lineage::of(&tensor.name, &tensor.tensor())),
        )
    }
}

impl Fate {
    /// The fate of `tensor` in the view of `plan`.
    pub fn of(plan: &Plan, tensor: &PlannedTensor, lineage: &Lineage) -> Self {
        let computes_scales = lineage.steps.iter().any(|step| {
            let output = step.parameters.get("gives");
            step.operator == "fp8" && output.is_some_and(|output| output == "scales")
        });
        if computes_scales {
            return Fate::Scales;
        }
        let [source] = lineage.from.as_slice() else {
            return Fate::Changed;
        };
        let is_whole = !tensor.computed
            && (source.tensor().dtype, &source.tensor().shape) == (tensor.dtype, &tensor.shape)
            && operators_of(lineage).is_empty();
        match role(plan, source.checkpoint()) {
            Some(Role::Base | Role::Model) if is_whole => Fate::Kept,
            Some(Role::Extra) if is_whole => Fate::Added,
            _ => Fate::Changed,
        }
    }
}

/// The role of a directory, the first if it has two; `None` if it is an adapter's.
fn role(plan: &Plan, checkpoint: &Path) -> Option<Role> {
    let mut sources = plan.report.sources.iter();
    let source = sources.find(|source| source.path == checkpoint)?;
    Some(source.role)
}

/// The operators that make a changed tensor, without those that only change its name.
fn operators(plan: &Plan, lineage: &Lineage) -> Vec<&'static str> {
    let mut operators = operators_of(lineage);
    let mut checkpoints = lineage.from.iter().map(|source| source.checkpoint());
    if !operators.contains(&LORA) && checkpoints.any(|at| role(plan, at).is_none()) {
        // A tensor that an adapter has as a whole.
        operators.insert(0, LORA);
    }
    if operators.is_empty() {
        operators.push("reshape");
    }
    operators
}

const LORA: &str = "lora";

fn operators_of(lineage: &Lineage) -> Vec<&'static str> {
    let mut operators = Vec::new();
    let of_sources = lineage.from.iter().flat_map(|source| &source.steps);
    for step in of_sources {
        if !operators.contains(&step.operator) {
            operators.push(step.operator);
        }
    }
    operators.extend(lineage.steps.iter().map(|step| step.operator));
    operators.retain(|operator| *operator != "rename");
    operators.dedup();
    operators
}

/// What the view takes from a source before any operator but the patch.
fn taken(source: &SourceReport) -> Count {
    Count {
        tensors: source.added,
        bytes: source.added_bytes,
    }
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.tensors += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl FileCount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Count>>(counts: I) -> Self {
        counts.fold(Count::default(), |sum, count| Count {
            tensors: sum.tensors + count.tensors,
            bytes: sum.bytes.saturating_add(count.bytes),
        })
    }
}

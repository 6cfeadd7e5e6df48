//! The figures of a view: how many tensors come about how, and what its files are. The plan, its
//! JSON and the report all show these.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use crate::catalog::{Role, SourceReport, Step};
use crate::format::Shard;
use crate::layout::PlannedTensor;
use crate::provenance::Lineage;
use crate::quant::weight_of;
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
    /// The same of a graft: it takes the place of another, or belongs to one that does.
    Grafted,
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

/// The tensors of a view by their fate, and its files: `total` is the sum of `kept`, `added`, `grafted`,
/// `changed` and `scales`, and `changed` that of `changed_by`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub total: Count,
    pub kept: Count,
    pub added: Count,
    pub grafted: Count,
    pub changed: Count,
    pub changed_by: Vec<ChangedBy>,
    pub scales: Count,
    /// What the view starts from: all tensors of the base or of the models that are merged, and the
    /// tensors that are taken from extras, before any are replaced.
    pub before: Count,
    pub shards: FileCount,
    /// Index, config, tokenizer and all else that is not a shard.
    pub other_files: FileCount,
    /// Files of both kinds that are whole source files.
    pub whole_files: FileCount,
}

impl Counts {
    /// The counts of `plan`'s view; `lineages` are those of its tensors, in order.
    pub fn new<L: Borrow<Lineage>>(plan: &Plan, lineages: impl IntoIterator<Item = L>) -> Self {
        let mut tally = Tally::default();
        let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
        for (tensor, lineage) in tensors.zip(lineages) {
            tally.add(plan, tensor, lineage.borrow());
        }
        tally.counts(plan)
    }

    /// The same where lineages are of no other use: few tensors need one, and none is kept.
    pub fn of_plan(plan: &Plan) -> Self {
        let mut tally = Tally::default();
        let role_of = |shard: &Arc<Shard>| plan.sources.role(shard);
        for tensor in plan.shards.iter().flat_map(|shard| &shard.tensors) {
            let role = stored_as_it_is(plan, tensor).and_then(role_of);
            let step = computed_from_one(plan, tensor);
            let step = step.filter(|(shard, _)| role_of(shard).is_some());
            match (role, step) {
                (Some(Role::Base | Role::Model), _) => tally.kept.add(tensor.len),
                (Some(Role::Extra), _) => tally.added.add(tensor.len),
                (Some(Role::Graft), _) => tally.grafted.add(tensor.len),
                (None, Some((_, step))) if gives_scales(&step) => tally.scales.add(tensor.len),
                (None, Some((_, step))) => tally.changed(vec![step.operator], tensor.len),
                (None, None) => {
                    let lineage = Lineage::trace(plan, tensor);
                    tally.add(plan, tensor, &lineage);
                }
            }
        }
        tally.counts(plan)
    }
}

/// The shard that `tensor` is a whole tensor of, under its name.
fn stored_as_it_is<'a>(plan: &'a Plan, tensor: &PlannedTensor) -> Option<&'a Arc<Shard>> {
    let (blob, offset) = tensor.extents.as_stored()?;
    let shard = plan.sources.shard(blob)?;
    let stored = shard.tensors.get(&tensor.name)?;
    let is_same =
        (stored.offset, stored.dtype, &stored.shape) == (offset, tensor.dtype, &tensor.shape);
    is_same.then_some(shard)
}

/// The step that makes `tensor` of one whole tensor of a shard that has its node's name; `None` if
/// it comes about otherwise.
fn computed_from_one<'a>(plan: &'a Plan, tensor: &PlannedTensor) -> Option<(&'a Arc<Shard>, Step)> {
    let (node, output, 0) = tensor.extents.as_computed()? else {
        return None;
    };
    let [input] = &node.inputs[..] else {
        return None;
    };
    let (blob, offset) = input.as_stored()?;
    let shard = plan.sources.shard(blob)?;
    let stored = shard.tensors.get(&node.name)?;
    let bands = node.kernel.bands();
    let last = bands.band(bands.count().checked_sub(1)?);
    let is_whole = node.kernel.output_bytes(output, &last).end == tensor.len
        && (stored.offset, stored.dtype, &stored.shape) == (offset, input.dtype, &input.shape);
    let step = node.kernel.step(output).filter(|_| is_whole)?;
    Some((shard, step))
}

/// Counts on their way.
#[derive(Default)]
struct Tally {
    kept: Count,
    added: Count,
    grafted: Count,
    scales: Count,
    changed_by: IndexMap<Vec<&'static str>, Count>,
}

impl Tally {
    fn add(&mut self, plan: &Plan, tensor: &PlannedTensor, lineage: &Lineage) {
        match Fate::new(plan, tensor, lineage) {
            Fate::Kept => self.kept.add(tensor.len),
            Fate::Added => self.added.add(tensor.len),
            Fate::Grafted => self.grafted.add(tensor.len),
            Fate::Scales => self.scales.add(tensor.len),
            Fate::Changed => self.changed(operators(plan, lineage), tensor.len),
        }
    }

    fn changed(&mut self, operators: Vec<&'static str>, bytes: u64) {
        self.changed_by.entry(operators).or_default().add(bytes);
    }

    fn counts(self, plan: &Plan) -> Counts {
        let Tally {
            kept,
            added,
            grafted,
            scales,
            changed_by,
        } = self;
        let changed = changed_by.values().copied().sum();
        let sources = plan.report.sources.iter();
        let (mut shards, mut other_files) = (FileCount::default(), FileCount::default());
        let mut whole_files = FileCount::default();
        let entries: HashSet<EntryId> = plan.shards.iter().map(|shard| shard.entry).collect();
        for (entry, _, content) in plan.view.files() {
            if entries.contains(&entry) {
                shards.add(content.len())
            } else {
                other_files.add(content.len())
            }
            if content.whole_file().is_some() {
                whole_files.add(content.len());
            }
        }
        Counts {
            total: [kept, added, grafted, changed, scales].into_iter().sum(),
            kept,
            added,
            grafted,
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
}

fn gives_scales(step: &Step) -> bool {
    let output = step.parameters.get("gives");
    let is_companion = output.is_some_and(|output| output == "scales" || output == "zero points");
    is_companion && matches!(step.operator, "fp8" | "quantize")
}

impl Fate {
    /// The fate of `tensor` in the view of `plan`.
    pub fn new(plan: &Plan, tensor: &PlannedTensor, lineage: &Lineage) -> Self {
        let is_made = lineage.from.is_empty() && weight_of(&tensor.name).is_some();
        if is_made || lineage.steps.iter().any(gives_scales) {
            return Fate::Scales;
        }
        let [source] = lineage.from.as_slice() else {
            return Fate::Changed;
        };
        let is_whole = !tensor.computed
            && (source.tensor().dtype, &source.tensor().shape) == (tensor.dtype, &tensor.shape)
            && operators_of(lineage).is_empty();
        match plan.sources.role(source.shard()) {
            Some(Role::Base | Role::Model) if is_whole => Fate::Kept,
            Some(Role::Extra) if is_whole => Fate::Added,
            Some(Role::Graft) if is_whole => Fate::Grafted,
            _ => Fate::Changed,
        }
    }
}

/// The operators that make a changed tensor, without those that only change its name.
fn operators(plan: &Plan, lineage: &Lineage) -> Vec<&'static str> {
    let mut operators = operators_of(lineage);
    let mut roles = lineage
        .from
        .iter()
        .map(|source| plan.sources.role(source.shard()));
    if !operators.contains(&LORA) && roles.any(|role| role.is_none()) {
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

/// What the view starts from of a source, before any operator but the patch.
fn taken(source: &SourceReport) -> Count {
    if source.role == Role::Graft {
        return Count::default();
    }
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

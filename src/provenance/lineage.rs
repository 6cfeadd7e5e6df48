//! The sources of a tensor and the steps from them to it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::catalog::{Extent, Node, NodeId, Sources, Step, Tensor};
use crate::format::{Shard, StoredTensor};
use crate::layout::PlannedTensor;
use crate::recipe::Plan;
use crate::tensor::Name;

/// Where a tensor comes from.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Lineage {
    /// The tensors of sources that its bytes lie in or are computed from, each once.
    pub from: Vec<Source>,
    /// What was done to all of `from` together, first things first; nothing if they are given as
    /// they are. What was done to one of them alone, before, is in [`Source::steps`].
    pub steps: Vec<Step>,
}

/// A tensor of a source, or a range of it.
#[derive(Debug, Clone)]
pub struct Source {
    shard: Arc<Shard>,
    /// The position in the shard's header.
    position: usize,
    /// From the first byte to the last that are taken, as offsets in the file.
    pub bytes: Range<u64>,
    /// How many runs of bytes are taken from it.
    pub runs: usize,
    /// What was done to it before it met the others.
    pub steps: Vec<Step>,
}

impl Source {
    /// The source that the shard is of: a directory, or the file itself, where that was named alone.
    pub fn checkpoint(&self) -> &Path {
        &self.shard.checkpoint
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.shard.blob.location()
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.shard.name
    }

    /// The name that the tensor has there.
    pub fn name(&self) -> &Name {
        self.entry().0
    }

    /// The tensor as the file's header describes it.
    pub fn tensor(&self) -> &StoredTensor {
        self.entry().1
    }

    fn entry(&self) -> (&Name, &StoredTensor) {
        let entry = self.shard.tensors.get_index(self.position);
        entry.expect("a source is one of its shard's tensors")
    }

    fn is_same(&self, other: &Source) -> bool {
        Arc::ptr_eq(&self.shard, &other.shard) && self.position == other.position
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("checkpoint", self.checkpoint())?;
        map.serialize_entry("file", self.file())?;
        map.serialize_entry("tensor", self.name())?;
        map.serialize_entry("dtype", &self.tensor().dtype)?;
        map.serialize_entry("shape", &self.tensor().shape)?;
        map.serialize_entry("bytes", &[self.bytes.start, self.bytes.end])?;
        if self.runs > 1 {
            map.serialize_entry("runs", &self.runs)?;
        }
        if !self.steps.is_empty() {
            map.serialize_entry("steps", &self.steps)?;
        }
        map.end()
    }
}

/// The lineage of every tensor of `plan`, by shard.
pub fn lineages(plan: &Plan) -> Vec<Vec<Lineage>> {
    let shards = plan.shards.iter().map(|shard| {
        let tensors = shard.tensors.iter();
        tensors.map(|tensor| Lineage::trace(plan, tensor)).collect()
    });
    shards.collect()
}

impl Lineage {
    /// The lineage of `tensor`, a tensor of `plan`.
    pub fn trace(plan: &Plan, tensor: &PlannedTensor) -> Self {
        let mut tracer = Tracer {
            sources: &plan.sources,
            inputs: HashMap::new(),
        };
        let mut traced = tracer.tensor(&tensor.tensor(), &tensor.name);
        traced.call(&tensor.name);
        Lineage {
            from: traced.from,
            steps: traced.steps,
        }
    }
}

/// A lineage on its way.
#[derive(Debug, Clone, Default)]
struct Traced {
    from: Vec<Source>,
    steps: Vec<Step>,
    /// What the tensor is called here; `None` if it is a part or a whole of named ones.
    name: Option<Name>,
}

impl Traced {
    /// Notes that it is called `name` from here on.
    fn call(&mut self, name: &str) {
        if let Some(before) = self.name.take_if(|before| &**before != name) {
            let step = Step::new("rename").with("from", &*before).with("to", name);
            self.steps.push(step);
        }
        self.name = Some(name.into());
    }

    /// The sources, each with the steps that were done to all of them here.
    fn apart(self) -> impl Iterator<Item = Source> {
        let steps = self.steps;
        self.from.into_iter().map(move |mut source| {
            source.steps.extend_from_slice(&steps);
            source
        })
    }

    /// Adds `sources`, those of one tensor put together.
    fn add(&mut self, sources: impl Iterator<Item = Source>, known: &mut Known) {
        for source in sources {
            let key = (Arc::as_ptr(&source.shard), source.position);
            let same = known.entry(key).or_default().iter().copied();
            let mut same = same.filter(|&at| self.from[at].steps == source.steps);
            if let Some(at) = same.next() {
                let Source { bytes, runs, .. } = &mut self.from[at];
                if !(bytes.contains(&source.bytes.start) && source.bytes.end <= bytes.end) {
                    *runs += source.runs;
                }
                *bytes = bytes.start.min(source.bytes.start)..bytes.end.max(source.bytes.end);
            } else {
                known.entry(key).or_default().push(self.from.len());
                self.from.push(source);
            }
        }
    }
}

/// Where the sources are in a list of them, by the tensor they are.
type Known = HashMap<(*const Shard, usize), Vec<usize>>;

/// Follows tensors to their sources. Nodes that many share are followed once.
struct Tracer<'a> {
    sources: &'a Sources,
    inputs: HashMap<NodeId, Vec<Traced>>,
}

impl Tracer<'_> {
    /// `name` decides between tensors without bytes, which may share a place.
    fn tensor(&mut self, tensor: &Tensor, name: &str) -> Traced {
        let mut parts = Vec::new();
        for segment in tensor.extents.with_empty() {
            match &segment.place {
                Extent::Made { .. } => parts.push(Traced::default()),
                Extent::Stored { blob, offset } => {
                    let shard = self.sources.shard(blob);
                    let shard = shard.expect("a plan knows the shards of its tensors");
                    parts.extend(stored(shard, *offset..offset + segment.len, name));
                }
                Extent::Computed {
                    node,
                    output,
                    offset,
                } => parts.push(self.computed(node, *output, *offset..offset + segment.len)),
            }
        }
        match parts.len() {
            1 => parts.remove(0),
            _ => join(parts),
        }
    }

    fn computed(&mut self, node: &Node, output: usize, bytes: Range<u64>) -> Traced {
        let mut traced = self.output(node, output);
        let bands = node.kernel.bands();
        let whole = match bands.count() {
            0 => 0,
            count => {
                let last = bands.band(count - 1);
                node.kernel.output_bytes(output, &last).end
            }
        };
        if bytes.end - bytes.start < whole {
            traced.steps.push(slice(bytes));
            traced.name = None;
        }
        traced
    }

    fn output(&mut self, node: &Node, output: usize) -> Traced {
        if !self.inputs.contains_key(&node.id()) {
            let inputs = node.inputs.iter();
            let inputs = inputs.map(|input| self.tensor(input, &node.name)).collect();
            self.inputs.insert(node.id(), inputs);
        }
        let mut inputs = self.inputs[&node.id()].clone().into_iter();
        let mut known = Known::new();
        let mut traced = Traced::default();
        match node.kernel.step(output) {
            Some(mut step) if !step.inputs_alike => {
                let mut first = inputs.next().expect("a node has an input");
                first.call(&node.name);
                traced.steps = std::mem::take(&mut first.steps);
                traced.add(first.from.into_iter(), &mut known);
                let here: BTreeSet<String> = checkpoints(&traced.from);
                inputs.for_each(|input| traced.add(input.apart(), &mut known));
                let with = checkpoints(&traced.from);
                let with: Vec<String> = with.difference(&here).cloned().collect();
                if !with.is_empty() {
                    step = step.with("with", with);
                }
                traced.steps.push(step);
            }
            step => {
                inputs.for_each(|input| traced.add(input.apart(), &mut known));
                traced.steps.extend(step);
            }
        }
        traced.name = (output == 0).then(|| node.name.clone());
        traced
    }
}

fn checkpoints(sources: &[Source]) -> BTreeSet<String> {
    let directories = sources.iter().map(Source::checkpoint);
    directories
        .map(|directory| directory.display().to_string())
        .collect()
}

fn slice(bytes: Range<u64>) -> Step {
    Step::new("slice").with("bytes", vec![bytes.start, bytes.end])
}

/// Bytes of a source, by the tensors that they are of.
fn stored(shard: &Arc<Shard>, bytes: Range<u64>, name: &str) -> Vec<Traced> {
    let table = &shard.tensors;
    if bytes.is_empty() {
        return vec![stored_in(
            shard,
            empty_tensor(shard, bytes.start, name),
            bytes,
        )];
    }
    if shard.container.shares_bytes()
        && let Some(position) = one_of_many(table, &bytes, name)
    {
        return vec![stored_in(shard, position, bytes)];
    }
    // Where tensors overlap, there is no order of their ends.
    let first = match shard.container.shares_bytes() {
        true => 0,
        false => table.partition_point(|_, tensor| end(tensor) <= bytes.start),
    };
    let tensors = (first..table.len()).map(|position| (position, &table[position]));
    let tensors = tensors.take_while(|(_, tensor)| tensor.offset < bytes.end);
    let tensors = tensors.filter(|(_, tensor)| tensor.len > 0 && end(tensor) > bytes.start);
    let parts = tensors.map(|(position, tensor)| {
        let start = bytes.start.max(tensor.offset);
        let end = bytes.end.min(end(tensor));
        stored_in(shard, position, start..end)
    });
    parts.collect()
}

/// Where the bytes of `tensor` end.
fn end(tensor: &StoredTensor) -> u64 {
    tensor.offset + tensor.span()
}

/// The position of the tensor that has all of `bytes`, where several may: preferably the one called `name`, then
/// one that is no larger.
fn one_of_many(
    table: &IndexMap<Name, StoredTensor>,
    bytes: &Range<u64>,
    name: &str,
) -> Option<usize> {
    let has = |tensor: &StoredTensor| tensor.offset <= bytes.start && bytes.end <= end(tensor);
    let named = table.get_full(name).filter(|(.., tensor)| has(tensor));
    if let Some((position, ..)) = named {
        return Some(position);
    }
    let first = table.partition_point(|_, tensor| tensor.offset < bytes.start);
    let starting = (first..table.len()).take_while(|&at| table[at].offset == bytes.start);
    let mut exact = starting.filter(|&at| end(&table[at]) == bytes.end);
    exact.next().or_else(|| table.values().position(has))
}

/// The position of the tensor without bytes that is at `offset`, preferably `name`; if there is none,
/// that of one next to it.
fn empty_tensor(shard: &Shard, offset: u64, name: &str) -> usize {
    let table = &shard.tensors;
    let is_here = |tensor: &StoredTensor| tensor.len == 0 && tensor.offset == offset;
    match table.get_full(name) {
        Some((position, _, tensor)) if is_here(tensor) => position,
        _ => {
            let first = table.partition_point(|_, tensor| tensor.offset < offset);
            match table.get_index(first) {
                Some((_, tensor)) if is_here(tensor) => first,
                _ => first.saturating_sub(1),
            }
        }
    }
}

/// Bytes of the tensor at `position` in the header of `shard`.
fn stored_in(shard: &Arc<Shard>, position: usize, bytes: Range<u64>) -> Traced {
    let found = shard.tensors.get_index(position);
    let (name, tensor) = found.expect("bytes of its tensors");
    let (steps, name) = if bytes.end - bytes.start == tensor.span() {
        (Vec::new(), Some(name.clone()))
    } else {
        let start = bytes.start - tensor.offset;
        (vec![slice(start..bytes.end - tensor.offset)], None)
    };
    Traced {
        from: vec![Source {
            shard: shard.clone(),
            position,
            bytes,
            runs: 1,
            steps: Vec::new(),
        }],
        steps,
        name,
    }
}

/// Parts put one after the other. Steps that all share are done to all, except for slices: which
/// bytes are taken, each source tells.
fn join(mut parts: Vec<Traced>) -> Traced {
    let count = parts.len();
    for part in &mut parts {
        part.steps.retain(|step| step.operator != "slice");
    }
    let shared = parts[0].steps.clone();
    let is_shared = parts.iter().all(|part| part.steps == shared);
    let mut joined = Traced::default();
    let mut known = Known::new();
    for part in parts {
        if is_shared {
            joined.add(part.from.into_iter(), &mut known)
        } else {
            joined.add(part.apart(), &mut known)
        }
    }
    if is_shared {
        joined.steps = shared;
    }
    joined.steps.push(Step::new("join").with("parts", count));
    joined
}

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        self.is_same(other) && self.bytes == other.bytes && self.steps == other.steps
    }
}

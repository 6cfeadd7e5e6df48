//! Many lineages seen as few: tensors whose names differ by numbers alone, and that come about in the
//! same way.

use indexmap::IndexMap;
use serde::{Serialize, Serializer};
use serde_json::{Number, Value, json};

use crate::catalog::Step;
use crate::layout::PlannedTensor;
use crate::provenance::pattern::{self, Pattern};
use crate::provenance::{Lineage, Source};
use crate::recipe::Plan;
use crate::tensor::{Dtype, Shape};

/// Tensors that come about in the same way.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    #[serde(serialize_with = "as_text")]
    pub name: Pattern,
    /// How many they are.
    pub tensors: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// The name of their dtype, or of the type that their blocks have.
    pub dtype: String,
    pub shape: Shape,
    pub from: Vec<GroupSource>,
    /// As [`Lineage::steps`]; numbers that are not the same for all are given as `{"min", "max"}`,
    /// names with the numbers in them folded, and what differs otherwise as `"…"`.
    pub steps: Vec<Step>,
}

/// Tensors of one checkpoint that tensors of a group come from.
#[derive(Debug, Clone, Serialize)]
pub struct GroupSource {
    pub checkpoint: String,
    #[serde(serialize_with = "as_text")]
    pub tensor: Pattern,
    pub dtype: Dtype,
    pub shape: Shape,
    /// How many of them a tensor of the group comes from.
    pub each: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

fn as_text<S: Serializer>(pattern: &Pattern, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(pattern)
}

/// What tensors of a group have in common.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    name: String,
    dtype: String,
    shape: Shape,
    steps: Vec<&'static str>,
    from: Vec<SourceKey>,
}

#[derive(PartialEq, Eq, Hash)]
struct SourceKey {
    checkpoint: String,
    tensor: String,
    dtype: String,
    shape: Shape,
    steps: Vec<&'static str>,
}

impl From<&Source> for SourceKey {
    fn from(source: &Source) -> Self {
        SourceKey {
            checkpoint: source.checkpoint().display().to_string(),
            tensor: pattern::shape(source.name()),
            dtype: source.tensor().dtype.to_string(),
            shape: source.tensor().shape.clone(),
            steps: operators(&source.steps),
        }
    }
}

fn operators(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().map(|step| step.operator).collect()
}

/// The groups of the tensors of `plan`, whose lineages are `lineages`, and each tensor's position in
/// them.
pub fn groups_of_plan(plan: &Plan, lineages: &[Vec<Lineage>]) -> (Vec<Group>, Vec<usize>) {
    let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
    groups(tensors.zip(lineages.iter().flatten()))
}

/// The groups of `tensors`, in the order of their first tensors; also gives the position of each
/// tensor's group.
pub fn groups<'a>(
    tensors: impl IntoIterator<Item = (&'a PlannedTensor, &'a Lineage)>,
) -> (Vec<Group>, Vec<usize>) {
    let mut groups: IndexMap<Key, Group> = IndexMap::new();
    let mut positions = Vec::new();
    for (tensor, lineage) in tensors {
        // The sources of a tensor, folded themselves: experts that are fused, for example.
        let mut from: IndexMap<SourceKey, Vec<&Source>> = IndexMap::new();
        for source in &lineage.from {
            from.entry(SourceKey::from(source))
                .or_default()
                .push(source);
        }
        let sources: Vec<Vec<&Source>> = from.values().cloned().collect();
        let key = Key {
            name: pattern::shape(&tensor.name),
            dtype: tensor.type_name(),
            shape: tensor.elements().clone(),
            steps: operators(&lineage.steps),
            from: from.into_keys().collect(),
        };
        let entry = groups.entry(key);
        positions.push(entry.index());
        entry
            .and_modify(|group| group.add(tensor, lineage, &sources))
            .or_insert_with(|| Group::new(tensor, lineage, &sources));
    }
    (groups.into_values().collect(), positions)
}

impl Group {
    fn new(tensor: &PlannedTensor, lineage: &Lineage, sources: &[Vec<&Source>]) -> Self {
        let from = sources.iter().map(|sources| {
            let first = sources[0];
            let mut of = GroupSource {
                checkpoint: first.checkpoint().display().to_string(),
                tensor: Pattern::from_name(first.name()),
                dtype: first.tensor().dtype,
                shape: first.tensor().shape.clone(),
                each: sources.len(),
                steps: first.steps.iter().map(folded).collect(),
            };
            of.add(&sources[1..]);
            of
        });
        Group {
            name: Pattern::from_name(&tensor.name),
            tensors: 1,
            bytes: tensor.len,
            dtype: tensor.type_name(),
            shape: tensor.elements().clone(),
            from: from.collect(),
            steps: lineage.steps.iter().map(folded).collect(),
        }
    }

    fn add(&mut self, tensor: &PlannedTensor, lineage: &Lineage, sources: &[Vec<&Source>]) {
        self.name.add(&tensor.name);
        self.tensors += 1;
        self.bytes = self.bytes.saturating_add(tensor.len);
        fold_steps(&mut self.steps, &lineage.steps);
        for (group, sources) in self.from.iter_mut().zip(sources) {
            group.each = group.each.max(sources.len());
            group.add(sources);
        }
    }
}

impl GroupSource {
    fn add(&mut self, sources: &[&Source]) {
        for source in sources {
            self.tensor.add(source.name());
            fold_steps(&mut self.steps, &source.steps);
        }
    }
}

/// A step with the numbers in the names of a renaming folded: they say no more than the patterns.
fn folded(step: &Step) -> Step {
    let mut step = step.clone();
    if step.operator == "rename" {
        for value in step.parameters.values_mut() {
            if let Value::String(name) = value {
                *name = pattern::starred(name);
            }
        }
    }
    step
}

/// Makes `steps` hold for `more` too, which are of the same operators.
fn fold_steps(steps: &mut [Step], more: &[Step]) {
    for (step, other) in steps.iter_mut().zip(more) {
        let other = folded(other);
        for (name, value) in &mut step.parameters {
            match other.parameters.get(name) {
                Some(other) => fold(value, other),
                None => *value = differs(),
            }
        }
    }
}

fn differs() -> Value {
    Value::from("…")
}

/// Makes `value` stand for `other` too.
fn fold(value: &mut Value, other: &Value) {
    if value == other {
        return;
    }
    match (&mut *value, other) {
        (Value::Array(values), Value::Array(others)) if values.len() == others.len() => {
            values.iter_mut().zip(others).for_each(|(v, o)| fold(v, o));
        }
        (_, Value::Number(other)) => {
            let bounds = match &*value {
                Value::Number(number) => Some((number, number)),
                value => match (&value["min"], &value["max"]) {
                    (Value::Number(min), Value::Number(max)) => Some((min, max)),
                    _ => None,
                },
            };
            let below = |a: &Number, b: &Number| a.as_f64() < b.as_f64();
            let folded = bounds.map(|(min, max)| {
                let min = if below(other, min) { other } else { min };
                let max = if below(max, other) { other } else { max };
                json!({"min": min, "max": max})
            });
            *value = folded.unwrap_or_else(differs);
        }
        _ => *value = differs(),
    }
}

/// A step as people read it: `fp8 (gives codes, block [128,128], scale_fmt ue8m0)`.
impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.operator)?;
        let parameters = self.parameters.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name} {text}"),
            Value::Object(range) if range.contains_key("min") => {
                format!("{name} {} to {}", range["min"], range["max"])
            }
            value => format!("{name} {value}"),
        });
        let parameters: Vec<String> = parameters.collect();
        if parameters.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", parameters.join(", "))
        }
    }
}

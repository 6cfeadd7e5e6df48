//! Figures of tensors, put together by layer and by kind of module.

use std::collections::BTreeMap;

use crate::catalog::Fidelity;

/// What was measured in a view.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// In name order, numbers in names by value.
    pub tensors: Vec<MeasuredTensor>,
    /// By layer: the name up to its first number (`model.layers.7`). Tensors without a number in
    /// their name are in the group without a name, which comes first.
    pub layers: Vec<MeasuredGroup>,
    /// By module: the last part of the name without `.weight` (`q_proj`, `gate_up_proj`).
    pub groups: Vec<MeasuredGroup>,
    pub total: Fidelity,
}

/// The figures of one tensor.
#[derive(Debug, Clone)]
pub struct MeasuredTensor {
    pub name: String,
    /// The dtype that it had, by its safetensors name.
    pub source_dtype: String,
    pub shape: Vec<u64>,
    pub fidelity: Fidelity,
}

/// The figures of several tensors as if they were one.
#[derive(Debug, Clone)]
pub struct MeasuredGroup {
    pub name: Option<String>,
    /// How many tensors.
    pub tensors: usize,
    pub fidelity: Fidelity,
}

impl Inspection {
    /// Puts the figures of `tensors` together.
    pub(super) fn new(mut tensors: Vec<MeasuredTensor>) -> Self {
        tensors.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
        let mut total = Fidelity::default();
        tensors.iter().for_each(|t| total.join(&t.fidelity));
        Inspection {
            layers: grouped(&tensors, layer),
            groups: grouped(&tensors, |name| Some(module(name))),
            tensors,
            total,
        }
    }
}

/// The figures of `tensors` by what `key` makes of their names, in the order of keys.
fn grouped(tensors: &[MeasuredTensor], key: fn(&str) -> Option<&str>) -> Vec<MeasuredGroup> {
    let mut groups: BTreeMap<Option<Vec<Part>>, MeasuredGroup> = BTreeMap::new();
    for tensor in tensors {
        let name = key(&tensor.name);
        let group = groups
            .entry(name.map(natural))
            .or_insert_with(|| MeasuredGroup {
                name: name.map(str::to_owned),
                tensors: 0,
                fidelity: Fidelity::default(),
            });
        group.tensors += 1;
        group.fidelity.join(&tensor.fidelity);
    }
    groups.into_values().collect()
}

/// A part of a name between dots; numbers come first and in order of value.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Number(u64, &'a str),
    Text(&'a str),
}

fn natural(name: &str) -> Vec<Part<'_>> {
    name.split('.')
        .map(|part| match part.parse() {
            Ok(number) => Part::Number(number, part),
            Err(_) => Part::Text(part),
        })
        .collect()
}

fn is_number(part: &str) -> bool {
    part.parse::<u64>().is_ok()
}

/// `model.layers.7` of `model.layers.7.mlp.experts.3.up_proj.weight`.
fn layer(name: &str) -> Option<&str> {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if is_number(part) {
            return Some(&name[..end]);
        }
        end += 1;
    }
    None
}

/// `up_proj` of `model.layers.7.mlp.experts.3.up_proj.weight`.
fn module(name: &str) -> &str {
    let path = name.strip_suffix(".weight").unwrap_or(name);
    let mut parts = path.rsplit('.');
    parts.find(|part| !is_number(part)).unwrap_or(path)
}

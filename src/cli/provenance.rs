//! Where the tensors of a view come from, as text.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;

use indicatif::BinaryBytes;

use ckptfs::catalog::{Role, Step};
use ckptfs::ops::lora::AdapterReport;
use ckptfs::provenance::{self, Group, GroupSource, Lineage};
use ckptfs::quant::weight_of;
use ckptfs::recipe::Plan;
use ckptfs::shown::Show;
use ckptfs::text::counted;

/// The groups of the view of `plan`, whose tensors have `lineages`, two lines for each; scales are
/// on the line of their weights.
pub(crate) fn text(plan: &Plan, lineages: &[Vec<Lineage>]) -> String {
    /// A checkpoint has some ten kinds of tensors, but names may be anything.
    const SHOWN: usize = 200;
    let (groups, _) = provenance::groups_of_plan(plan, lineages);
    let kinds = with_scales(&groups);
    let mut text = String::new();
    for (group, scales) in kinds.iter().take(SHOWN) {
        let shape = &group.shape;
        let mut bytes = group.bytes;
        let with = scales.map_or_else(String::new, |scales| {
            bytes = bytes.saturating_add(scales.bytes);
            format!(", scales {} {:?}", scales.dtype, scales.shape)
        });
        text += &format!(
            "{}  {} × {} {shape:?}{with}  {}\n    {}\n",
            group.name.to_string().shown(),
            group.tensors,
            group.dtype,
            BinaryBytes(bytes),
            way(plan, group).shown()
        );
    }
    if kinds.len() > SHOWN {
        let left_out = counted(kinds.len() - SHOWN, "kind");
        text += &format!("… and {left_out} of tensors more; --json has all\n");
    }
    text
}

/// Each group with that of its scales, which has no place of its own then.
fn with_scales(groups: &[Group]) -> Vec<(&Group, Option<&Group>)> {
    let mut unclaimed: HashMap<(String, usize), VecDeque<usize>> = HashMap::new();
    for (i, group) in groups.iter().enumerate() {
        if let Some(weight) = weight_of(&group.name.to_string()) {
            let key = (weight.to_owned(), group.tensors);
            unclaimed.entry(key).or_default().push_back(i);
        }
    }
    let mut scales: HashMap<usize, usize> = HashMap::new();
    for (i, group) in groups.iter().enumerate() {
        let name = group.name.to_string();
        if weight_of(&name).is_some() {
            continue;
        }
        let key = (name, group.tensors);
        if let Some(of_weight) = unclaimed.get_mut(&key).and_then(VecDeque::pop_front) {
            scales.insert(i, of_weight);
        }
    }
    let claimed: HashSet<usize> = scales.values().copied().collect();
    let kinds = groups
        .iter()
        .enumerate()
        .filter(|(i, _)| !claimed.contains(i));
    let kinds = kinds.map(|(i, group)| (group, scales.get(&i).map(|&scales| &groups[scales])));
    kinds.collect()
}

/// Sources and steps of a group in a line.
pub(crate) fn way(plan: &Plan, group: &Group) -> String {
    let sources = group.from.iter();
    let sources: Vec<String> = sources.map(|from| source(plan, group, from)).collect();
    std::iter::once(sources.join(" + "))
        .chain(group.steps.iter().map(Step::to_string))
        .collect::<Vec<_>>()
        .join(" → ")
}

fn source(plan: &Plan, group: &Group, from: &GroupSource) -> String {
    let mut text = label(plan, Path::new(&from.checkpoint));
    let name = from.tensor.to_string();
    if name != group.name.to_string() {
        text += &format!(" {name}");
    }
    if from.each > 1 {
        text += &format!(" ({} each)", from.each);
    }
    if from.dtype.to_string() != group.dtype || from.shape != group.shape {
        text += &format!(" {} {:?}", from.dtype, from.shape);
    }
    for step in &from.steps {
        text += &format!(" → {step}");
    }
    if from.steps.is_empty() {
        text
    } else {
        format!("({text})")
    }
}

/// What the summary calls a source.
pub(crate) fn label(plan: &Plan, path: &Path) -> String {
    let mut models = plan.report.merge.iter().flat_map(|merge| &merge.models);
    let mut parts: Vec<&str> = Vec::new();
    for source in &plan.report.sources {
        let model = match source.role {
            Role::Model => models.next(),
            Role::Base | Role::Extra | Role::Graft => None,
        };
        if source.path != path {
            continue;
        }
        let part = match (source.role, model) {
            (Role::Base, _) => return "base".to_owned(),
            (Role::Model, Some(model)) => return model.clone(),
            (Role::Graft, _) => "graft",
            _ => "extra",
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let mut adapters = plan.report.reports::<AdapterReport>();
    if !parts.is_empty() {
        format!("{} {}", parts.join(" and "), path.display())
    } else if adapters.any(|adapter| adapter.path == path) {
        format!("lora {}", path.display())
    } else {
        path.display().to_string()
    }
}

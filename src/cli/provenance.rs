//! Where the tensors of a view come from, as text.

use std::path::Path;

use indicatif::BinaryBytes;

use ckptfs::catalog::{Role, Step};
use ckptfs::provenance::{self, Group, GroupSource, Lineage};
use ckptfs::recipe::Plan;
use ckptfs::shown::Show;

/// The lineage of every tensor, by shard.
pub(crate) fn lineages(plan: &Plan) -> Vec<Vec<Lineage>> {
    let shards = plan.shards.iter().map(|shard| {
        let tensors = shard.tensors.iter();
        let lineages = tensors.map(|tensor| Lineage::of(&tensor.name, &tensor.tensor()));
        lineages.collect()
    });
    shards.collect()
}

/// The groups of the tensors, whose lineages are `lineages`, and each tensor's position in them.
pub(crate) fn groups(plan: &Plan, lineages: &[Vec<Lineage>]) -> (Vec<Group>, Vec<usize>) {
    let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
    provenance::groups(tensors.zip(lineages.iter().flatten()))
}

/// The groups of the view of `plan`, two lines for each.
pub(crate) fn text(plan: &Plan) -> String {
    /// A checkpoint has some ten kinds of tensors, but names may be anything.
    const SHOWN: usize = 200;
    let (groups, _) = groups(plan, &lineages(plan));
    let mut text = String::from("\n");
    for group in &groups[..groups.len().min(SHOWN)] {
        let shape = &group.shape;
        text += &format!(
            "{}  {} × {} {shape:?}  {}\n    {}\n",
            group.name.to_string().shown(),
            group.tensors,
            group.dtype,
            BinaryBytes(group.bytes),
            way(plan, group).shown()
        );
    }
    if groups.len() > SHOWN {
        let left_out = groups.len() - SHOWN;
        text += &format!("… and {left_out} kinds of tensors more; --json has all\n");
    }
    text
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
    if (from.dtype, &from.shape) != (group.dtype, &group.shape) {
        text += &format!(" {} {:?}", from.dtype, from.shape);
    }
    for step in &from.steps {
        text += &format!(" → {step}");
    }
    match from.steps.is_empty() {
        true => text,
        false => format!("({text})"),
    }
}

/// What the summary calls a directory.
pub(crate) fn label(plan: &Plan, directory: &Path) -> String {
    let mut models = plan.report.merge.iter().flat_map(|merge| &merge.models);
    for source in &plan.report.sources {
        let model = match source.role {
            Role::Model => models.next(),
            Role::Base | Role::Extra => None,
        };
        if source.path == directory {
            return match (source.role, model) {
                (Role::Base, _) => "base".to_owned(),
                (Role::Model, Some(model)) => model.clone(),
                _ => format!("extra {}", directory.display()),
            };
        }
    }
    let adapters = &plan.report.adapters;
    match adapters.iter().any(|adapter| adapter.path == directory) {
        true => format!("lora {}", directory.display()),
        false => directory.display().to_string(),
    }
}

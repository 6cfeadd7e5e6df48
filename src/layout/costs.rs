//! What a view would cost to read if it were cut into other shards.

use crate::catalog::{Catalog, Sources};
use crate::layout::partition::{Group, InUnit, Shards, groups, names};
use crate::layout::plan::{ShardCost, ShardCosts};
use crate::layout::shard_file::whole_file;

/// The costs of the view of `catalog` that has the shards `chosen`, and of the same view with others. No
/// file is laid out for that: it is a few steps for each tensor.
pub(super) fn costs<'a>(
    catalog: &'a Catalog,
    units: &[InUnit<'a>],
    (chosen, chosen_groups): (Shards, &[Group<'a>]),
    shard_bytes: u64,
) -> ShardCosts {
    let view = cost(chosen_groups, &catalog.sources);
    // Keeping and renumbering give the same files under different names.
    let partition = |shards: Shards| match shards {
        Shards::Renumber => Shards::Keep,
        other => other,
    };
    let with = |partition_of: Shards| {
        let groups = groups(catalog, units, partition_of, shard_bytes);
        let cost = if partition(chosen) == partition_of {
            view
        } else {
            cost(&groups, &catalog.sources)
        };
        move |shards| names(&groups, shards).is_ok().then_some(cost)
    };
    let kept = with(Shards::Keep);
    let packed = with(Shards::Repack);
    ShardCosts {
        chosen,
        view,
        keep: kept(Shards::Keep),
        renumber: kept(Shards::Renumber),
        repack: packed(Shards::Repack),
    }
}

fn cost(groups: &[Group], sources: &Sources) -> ShardCost {
    let mut cost = ShardCost {
        shards: groups.len(),
        whole_files: 0,
        bytes_in_whole_files: 0,
    };
    for Group { tensors, .. } in groups {
        if whole_file(tensors, sources).is_some() {
            cost.whole_files += 1;
            cost.bytes_in_whole_files +=
                tensors.iter().map(|(_, tensor)| tensor.len()).sum::<u64>();
        }
    }
    cost
}

//! What other shards would cost, in a line.

use indicatif::BinaryBytes;

use ckptfs::layout::ShardCosts;
use ckptfs::named::Named;
use ckptfs::recipe::Plan;

/// How many bytes of tensors are in whole source files, and how many would be with shards that leave more
/// whole; nothing where none do.
pub(super) fn line(plan: &Plan) -> String {
    let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
    text(&plan.costs, tensors.map(|tensor| tensor.len).sum())
}

fn text(costs: &ShardCosts, total: u64) -> String {
    let whole = costs.view.bytes_in_whole_files;
    let mut others: Vec<(u64, Vec<&str>)> = Vec::new();
    for (shards, cost) in costs.choices() {
        let Some(cost) = cost.filter(|cost| cost.bytes_in_whole_files > whole) else {
            continue;
        };
        let bytes = cost.bytes_in_whole_files;
        match others.iter_mut().find(|(known, _)| *known == bytes) {
            Some((_, names)) => names.push(shards.name()),
            None => others.push((bytes, vec![shards.name()])),
        }
    }
    if others.is_empty() {
        return String::new();
    }
    let all = BinaryBytes(total);
    let here = match whole {
        0 => format!("no byte of {all} is in a whole source file"),
        _ => format!("{} of {all} is in whole source files", BinaryBytes(whole)),
    };
    let mut text = format!("shards {}: {here}", costs.chosen.name());
    for (bytes, names) in others {
        let how_much = if bytes == total {
            "all of it".to_owned()
        } else {
            format!("{} of it", BinaryBytes(bytes))
        };
        text += &format!("; --shards {}: {how_much}", names.join(" or "));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use ckptfs::layout::ShardCost;
    use ckptfs::recipe::Shards;

    use super::*;

    /// The line of a view of 3 KiB with these shards, of which so many bytes are in whole files if they
    /// are kept, renumbered and packed.
    fn shown(chosen: Shards, view: u64, others: [Option<u64>; 3]) -> String {
        let cost = |bytes_in_whole_files| ShardCost {
            shards: 2,
            whole_files: 1,
            bytes_in_whole_files,
        };
        let [keep, renumber, repack] = others.map(|bytes| bytes.map(cost));
        let costs = ShardCosts {
            chosen,
            view: cost(view),
            keep,
            renumber,
            repack,
        };
        text(&costs, 3 << 10)
    }

    #[test]
    fn choices_that_gain_nothing_are_not_shown() {
        assert_eq!(shown(Shards::Repack, 0, [Some(0); 3]), "");
        assert_eq!(shown(Shards::Keep, 7, [Some(7), None, Some(0)]), "");
    }

    #[test]
    fn the_line_says_what_is_whole_now_and_with_each_choice_that_leaves_more_so() {
        let all = Some(3 << 10);
        assert_eq!(
            shown(Shards::Repack, 0, [all, all, Some(0)]),
            "shards repack: no byte of 3.00 KiB is in a whole source file; \
             --shards keep or renumber: all of it\n"
        );
        assert_eq!(
            shown(Shards::Single, 1 << 10, [all, Some(2 << 10), Some(0)]),
            "shards single: 1.00 KiB of 3.00 KiB is in whole source files; \
             --shards keep: all of it; --shards renumber: 2.00 KiB of it\n"
        );
    }
}

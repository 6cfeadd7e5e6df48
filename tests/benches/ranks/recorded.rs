//! What a loader asked a mount for, as record.py wrote it.

use ckptfs::layout::PlannedShard;
use ckptfs::recipe::Plan;

use crate::{PARTS, Read, is_cut_by_columns, layer};

/// Ranks that read at other places ask for whole pages, too.
const PAGE: i64 = 4096;

/// The reads of `rank` of `ways`, those of the rank that was recorded at the places of this one.
pub(crate) fn recorded(plan: &Plan, rank: u64, ways: u64) -> Vec<Read> {
    let mut lines = include_str!("recorded.txt").lines();
    let numbers = |line: &str| -> Vec<u64> {
        let words = line.split(' ');
        words.filter_map(|word| word.parse().ok()).collect()
    };
    let head = format!("loader {ways} get_slice ");
    let head = lines.find(|line| line.starts_with(&head));
    let of_rank = numbers(head.expect("it was recorded"))[1];
    let runs = lines.take_while(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let mut reads = Vec::new();
    let shards = layer(plan);
    for run in runs.map(numbers) {
        let [shard, first, len, count, stride] = run[..] else {
            panic!("a run has five numbers: {run:?}");
        };
        let shard = shards[shard as usize];
        for offset in (0..count).map(|number| first + number * stride) {
            let from = moved(shard, offset, rank as i64 - of_rank as i64, ways);
            let from = from.min(shard.len);
            reads.push((shard.entry, from, len.min(shard.len - from)));
        }
    }
    reads
}

/// Where the rank `further` ranks after the one that read at `offset` reads instead: as much further in the tensor as its
/// rows, or its columns, are.
fn moved(shard: &PlannedShard, offset: u64, further: i64, ways: u64) -> u64 {
    let mut tensors = shard.tensors.iter().rev();
    let Some(tensor) = tensors.find(|tensor| tensor.offset <= offset) else {
        // In the header.
        return offset;
    };
    let (rows, row) = (tensor.shape[0] / PARTS, 2 * tensor.shape[1]);
    let share = match is_cut_by_columns(&tensor.name) {
        true => row / ways,
        false => rows / ways * row,
    };
    let distance = further * share as i64 / PAGE * PAGE;
    offset.saturating_add_signed(distance)
}

//! What the ranks of a cluster fetch of a view of 1 TB at a URL: planning, blocks and reading ahead are the program's
//! own, and a server on this machine sends zeros that nobody stored. docs/CLUSTER.md has the figures.
//!
//!     cargo run --release --example ranks [PARTS]
//!
//! Of one layer the first of PARTS (4) parts of each tensor is read; the others are like it. Ranks read by what `get_slice`
//! is, and by what a mount was asked for by a loader: recorded.txt, made by record.py.

mod recorded;
mod server;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Instant;

use ckptfs::layout::PlannedShard;
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::source::Location;
use ckptfs::source::remote::{BlockCacheOptions, Network, NetworkOptions};
use ckptfs::view::EntryId;
use tempfile::TempDir;

use recorded::recorded;
use server::Server;

const NODES: u64 = 8;
const RANKS: u64 = 8;
const GIB: f64 = (1_u64 << 30) as f64;

/// The layer that is read.
const LAYER: &str = "model.layers.77.";
/// Of how many parts of each tensor the first was recorded.
const PARTS: u64 = 4;

/// A range of a file: entry, offset and length.
type Read = (EntryId, u64, u64);

/// Shards of the layer that is read.
fn layer(plan: &Plan) -> Vec<&PlannedShard> {
    let shards = plan.shards.iter();
    shards
        .filter(|shard| shard.tensors[0].name.starts_with(LAYER))
        .collect()
}

/// Whether ranks take columns of a tensor. Of the others they take rows.
fn is_cut_by_columns(name: &str) -> bool {
    name.contains("o_proj") || name.contains("down_proj")
}

/// Ranges of the tensors of a layer that `rank` of `ways` takes of the first of `parts` parts of each, by what `get_slice`
/// is: each with the entry of its file.
fn defined(plan: &Plan, rank: u64, ways: u64, parts: u64) -> Vec<Read> {
    let mut reads = Vec::new();
    for shard in layer(plan) {
        for tensor in &shard.tensors {
            let (rows, row) = (tensor.shape[0] / parts, 2 * tensor.shape[1]);
            if is_cut_by_columns(&tensor.name) {
                let width = row / ways;
                reads.extend((0..rows).map(|number| {
                    let from = tensor.offset + number * row + rank * width;
                    (shard.entry, from, width)
                }));
            } else {
                let from = tensor.offset + rank * (rows / ways) * row;
                reads.push((shard.entry, from, rows / ways * row));
            }
        }
    }
    reads
}

/// Reads `reads` in their order; returns how many bytes.
fn read(reader: &Reader, reads: &[Read]) -> u64 {
    const PIECE: u64 = 1 << 20;
    let mut buffer = vec![0; PIECE as usize];
    for &(entry, from, len) in reads {
        let mut at = from;
        while at < from + len {
            let count = (from + len - at).min(PIECE) as usize;
            let found = reader.read_at(entry, at, &mut buffer[..count]);
            assert_eq!(found.expect("it can be read"), count);
            at += count as u64;
        }
    }
    reads.iter().map(|(_, _, len)| len).sum()
}

/// What a directory takes on disk.
fn on_disk(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => on_disk(&entry.path()),
        metadata => metadata.map_or(0, |metadata| metadata.blocks() * 512),
    });
    sizes.sum()
}

/// The view of `url` as a node plans it, and the directory of its block cache, which is used if `cached`.
fn planned(url: &str, cached: bool) -> (TempDir, Plan) {
    let cache = tempfile::tempdir().expect("a directory can be made");
    let network = Network::new(NetworkOptions {
        block_cache: cached.then(|| BlockCacheOptions {
            directory: cache.path().to_owned(),
            max_bytes: Some(64 << 30),
        }),
        ..NetworkOptions::default()
    });
    let network = network.expect("this machine has a network");
    let base = network.open(url).map(Location::Open);
    let plan = ViewRequest::new(base.expect("it is there")).plan();
    (cache, plan.expect("it can be planned"))
}

fn main() {
    let parts = std::env::args()
        .nth(1)
        .map_or(PARTS, |text| text.parse().expect("a number"));
    let (server, url) = Server::start();
    let total: u64 = server.files.values().map(|file| file.len).sum();
    println!(
        "{} files, {:.3} TB",
        server.files.len(),
        total as f64 / 1e12
    );
    let mut is_planned = false;
    for (what, ways, in_step, cached) in [
        ("8 ways, in step", RANKS, true, false),
        ("8 ways, one after the other", RANKS, false, false),
        (
            "8 ways, one after the other, block cache",
            RANKS,
            false,
            true,
        ),
        ("64 ways, in step", RANKS * NODES, true, false),
        ("64 ways, one after the other", RANKS * NODES, false, false),
        (
            "64 ways, one after the other, block cache",
            RANKS * NODES,
            false,
            true,
        ),
    ] {
        let begun = Instant::now();
        let (_cache, plan) = planned(&url, cached);
        let seconds = begun.elapsed().as_secs_f64();
        let (requests, bytes) = server.take();
        if !std::mem::replace(&mut is_planned, true) {
            println!("planned in {seconds:.2} s: {requests} requests, {bytes} bytes");
        }
        // Those of one node.
        let needed: Vec<Vec<Read>> = (0..RANKS).map(|i| defined(&plan, i, ways, parts)).collect();
        let needed_bytes: u64 = needed.iter().flatten().map(|(_, _, len)| len).sum();
        let recorded: Vec<Vec<Read>> = (0..RANKS).map(|i| recorded(&plan, i, ways)).collect();
        let all = [("as defined", needed), ("as recorded", recorded)];
        for (number, (source, ranks)) in all.iter().enumerate() {
            // Another part of a layer was recorded.
            if number == 1 && parts != PARTS {
                continue;
            }
            // Nothing that the one fetched serves the other.
            let (cache, plan) = planned(&url, cached);
            server.take();
            let reader = &Reader::new(plan.view.clone(), 1 << 20);
            let asked: u64 = match in_step {
                true => thread::scope(|scope| {
                    let ranks = ranks
                        .iter()
                        .map(|reads| scope.spawn(move || read(reader, reads)));
                    let ranks: Vec<_> = ranks.collect();
                    let read = ranks.into_iter().map(|rank| rank.join().expect("it read"));
                    read.sum()
                }),
                false => ranks.iter().map(|reads| read(reader, reads)).sum(),
            };
            let (requests, bytes) = server.take();
            let over = |bytes: u64| bytes as f64 / needed_bytes as f64;
            println!(
                "{what}, {source}: needed {:.3} GiB, asked for {:.2} times that, fetched {:.2} times that, {requests} requests, on disk {:.3} GiB",
                needed_bytes as f64 / GIB,
                over(asked),
                over(bytes),
                on_disk(cache.path()) as f64 / GIB
            );
        }
    }
}

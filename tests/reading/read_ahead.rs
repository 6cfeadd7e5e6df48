//! Computing ahead of sequential readers: it changes no byte, follows whoever reads in order, and
//! leaves everybody else alone.

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ckptfs::catalog::{Band, Extent, Kernel, Node, NonFinite, RowBands, Step};
use ckptfs::error::Code;
use ckptfs::read::{Ahead, ReadAhead, Reader};
use ckptfs::recipe::Plan;
use ckptfs::runs::Runs;
use ckptfs::source::Attributes;
use ckptfs::view::{TopFile, View};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::{Workspace, plan_by_rules};

const CODES: u64 = 128 * 128;
const LAYERS: u64 = 16;

/// An FP8 view of 16 tensors of 128 × 128, in one shard.
fn plan(workspace: &Workspace) -> Plan {
    let layer = |i| format!("model.layers.{i:02}.self_attn.o_proj.weight");
    let layers = (0..LAYERS).map(|i| bf16(&layer(i), &[128, 128]));
    plan_by_rules(&workspace.write("base", &Checkpoint::single(layers))).unwrap()
}

/// Where the tensors begin in the shard.
fn data_start(plan: &Plan) -> u64 {
    let tensors = plan.shards[0].tensors.iter();
    tensors.map(|tensor| tensor.offset).min().unwrap()
}

/// Waits until `reader` holds `wanted` bytes of tiles.
fn eventually_cached(reader: &Reader, wanted: usize) {
    let start = Instant::now();
    while reader.cached_bytes() < wanted {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "only {} bytes are computed ahead of {wanted}",
            reader.cached_bytes()
        );
        std::thread::yield_now();
    }
}

#[test]
fn tiles_ahead_of_a_sequential_reader_are_computed_before_they_are_read() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let entry = plan.shards[0].entry;
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let ahead = ReadAhead::start(reader.clone(), 4 * CODES, 2).unwrap();
    let start = data_start(&plan);
    ahead.note(entry, start..start + 100, Ahead::Tiles);
    ahead.note(entry, start + 100..start + 200, Ahead::Tiles);
    // The tile that is being read is the reader's own; the next three or four are not.
    eventually_cached(&reader, 3 * CODES as usize);
    drop(ahead);
    assert!(reader.cached_bytes() as u64 <= 5 * (CODES + 4));
}

/// The shard of a repacked view of zeros, all of them stored, and its source.
fn stored(workspace: &Workspace) -> (Arc<Reader>, usize, std::path::PathBuf) {
    let weights = (0..LAYERS).map(|i| bf16(&format!("layers.{i}"), &[128, 128]));
    let base = workspace.write("base", &Checkpoint::single(weights));
    let plan = ckptfs::recipe::ViewRequest::new(&base).plan().unwrap();
    let entry = plan.shards[0].entry;
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    (reader, entry, base.join("model.safetensors"))
}

#[test]
fn stored_bytes_ahead_of_a_sequential_reader_wait_for_it_and_no_longer() {
    let workspace = Workspace::new();
    let (reader, entry, source) = stored(&workspace);
    let expected = fs::read(source).unwrap();
    let ahead = ReadAhead::start(reader.clone(), 1 << 20, 2).unwrap();
    ahead.note(entry, 0..1000, Ahead::Everything);
    ahead.note(entry, 1000..2000, Ahead::Everything);
    // Whatever waits is read before this returns.
    drop(ahead);
    // No further ahead than the reader has come.
    assert_eq!(reader.fetched_bytes(), 2000);
    let mut bytes = vec![0; 3000];
    for (range, left) in [(2000..2500, 2000), (2400..4001, 0), (2000..4000, 0)] {
        let buffer = &mut bytes[..range.len()];
        reader.read_at(entry, range.start as u64, buffer).unwrap();
        assert!(*buffer == expected[range]);
        assert_eq!(reader.fetched_bytes(), left);
    }
}

#[test]
fn stored_bytes_that_were_read_ahead_of_a_change_are_not_given_after_it() {
    let workspace = Workspace::new();
    let (reader, entry, source) = stored(&workspace);
    let ahead = ReadAhead::start(reader.clone(), 1 << 20, 2).unwrap();
    ahead.note(entry, 0..1000, Ahead::Everything);
    ahead.note(entry, 1000..2000, Ahead::Everything);
    drop(ahead);
    let bytes = fs::read(&source).unwrap();
    fs::write(&source, bytes).unwrap();
    let mut buffer = [0; 100];
    for offset in [0, 2000, 3950, 4000] {
        let error = reader.read_at(entry, offset, &mut buffer);
        assert!(error.is_err_and(|error| error.code() == Code::SourceChanged));
        let error = reader.read_with(entry, offset, 100, &mut Vec::new(), <[u8]>::to_vec);
        assert!(error.is_err_and(|error| error.code() == Code::SourceChanged));
    }
}

#[test]
fn stored_bytes_are_read_ahead_only_where_the_reader_wants_all_and_the_cache_has_room() {
    let workspace = Workspace::new();
    let (reader, entry, _) = stored(&workspace);
    for what in [Ahead::SlowTiles, Ahead::Tiles] {
        let ahead = ReadAhead::start(reader.clone(), 1 << 20, 2).unwrap();
        for at in 0..9 {
            ahead.note(entry, at * 50_000..(at + 1) * 50_000, what);
        }
        drop(ahead);
        assert_eq!(reader.fetched_bytes(), 0);
    }
    let ahead = ReadAhead::start(reader.clone(), 1 << 20, 2).unwrap();
    for at in 0..9 {
        ahead.note(entry, at * 50_000..(at + 1) * 50_000, Ahead::Everything);
        assert!(reader.fetched_bytes() <= 1 << 17, "an eighth of the cache");
    }
}

#[test]
fn of_readers_that_take_turns_nothing_stored_is_read_ahead() {
    let workspace = Workspace::new();
    let (reader, entry, _) = stored(&workspace);
    let ahead = ReadAhead::start(reader.clone(), 1 << 20, 2).unwrap();
    for at in 0..9 {
        for reader in [0, 100 << 20, 200 << 20] {
            let start = reader + at * 1000;
            ahead.note(entry, start..start + 1000, Ahead::Everything);
        }
    }
    drop(ahead);
    assert_eq!(reader.fetched_bytes(), 0);
}

#[test]
fn reads_here_and_there_compute_nothing_ahead() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let entry = plan.shards[0].entry;
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let ahead = ReadAhead::start(reader.clone(), 4 * CODES, 2).unwrap();
    // Each is far from where any other one ended.
    for place in [500, 100, 900, 300, 700] {
        ahead.note(entry, place << 20..(place << 20) + 4096, Ahead::Tiles);
    }
    // Whatever waits is computed before this returns.
    drop(ahead);
    assert_eq!(reader.cached_bytes(), 0);
}

#[test]
fn a_cache_too_small_to_hold_what_is_ahead_gets_none_of_it() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let entry = plan.shards[0].entry;
    let reader = Arc::new(Reader::new(plan.view.clone(), 0));
    let ahead = ReadAhead::start(reader.clone(), 1 << 30, 1).unwrap();
    let start = data_start(&plan);
    ahead.note(entry, start..start + 100, Ahead::Tiles);
    ahead.note(entry, start + 100..start + 200, Ahead::Tiles);
    drop(ahead);
    assert_eq!(reader.cached_bytes(), 0);
}

#[test]
fn what_cannot_be_computed_ahead_is_an_error_only_for_who_reads_it() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let entry = plan.shards[0].entry;
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let start = data_start(&plan);
    let mut first = vec![0; CODES as usize];
    reader.read_at(entry, start, &mut first).unwrap();
    let source = workspace.path().join("base/model.safetensors");
    let bytes = fs::read(&source).unwrap();
    fs::write(&source, bytes).unwrap();
    let ahead = ReadAhead::start(reader.clone(), 4 * CODES, 2).unwrap();
    ahead.note(entry, start..start + 100, Ahead::Tiles);
    ahead.note(entry, start + 100..start + 200, Ahead::Tiles);
    drop(ahead);
    let mut again = vec![0; CODES as usize];
    reader.read_at(entry, start, &mut again).unwrap();
    assert!(first == again);
    let error = reader.read_at(entry, start + 2 * CODES, &mut again);
    assert!(error.is_err_and(|error| error.code() == Code::SourceChanged));
}

const BAND: u64 = 1000;

/// Four bands of zeros, unless there is a bug in it. Each waits for its turn, and is counted.
#[derive(Debug, Clone, Default)]
struct Zeros {
    bug: bool,
    turn: Arc<Mutex<()>>,
    computed: Arc<AtomicU64>,
}

impl Kernel for Zeros {
    fn identity(&self) -> String {
        "Zeros".to_owned()
    }

    fn step(&self, _output: usize) -> Option<Step> {
        None
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: 4,
            band_rows: 1,
        }
    }

    fn input_bytes(&self, _input: usize, _band: &Band) -> Range<u64> {
        0..0
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        band.index * BAND..(band.index + 1) * BAND
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        _inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        assert!(!self.bug, "a bug in a kernel, on purpose");
        drop(self.turn.lock());
        self.computed.fetch_add(1, Ordering::Relaxed);
        outputs[0].fill(0);
        Ok(())
    }
}

/// A file of what `zeros` computes.
fn file_of(name: &str, zeros: Zeros, attributes: Attributes) -> TopFile {
    let node = Arc::new(Node::new(name, Vec::new(), Box::new(zeros)));
    let place = Extent::Computed {
        node,
        output: 0,
        offset: 0,
    };
    TopFile {
        name: name.into(),
        attributes,
        content: Runs::one(4 * BAND, place),
    }
}

#[test]
fn tiles_that_their_reader_has_passed_are_not_computed_any_more() {
    let workspace = Workspace::new();
    let attributes = Attributes::read(workspace.path()).unwrap();
    let zeros = Zeros::default();
    let files = vec![file_of("zeros", zeros.clone(), attributes)];
    let view = Arc::new(View::new(attributes, files, &[]));
    let reader = Arc::new(Reader::new(view.clone(), 1 << 20));
    let ahead = ReadAhead::start(reader, 4 * BAND, 1).unwrap();
    let entry = view.lookup(View::ROOT, "zeros".as_ref()).unwrap();
    let turn = zeros.turn.lock();
    ahead.note(entry, 0..10, Ahead::Tiles);
    // From here on three tiles wait, of which the first may have been begun.
    ahead.note(entry, 10..20, Ahead::Tiles);
    ahead.note(entry, 20..4 * BAND, Ahead::Tiles);
    drop(turn);
    drop(ahead);
    assert!(zeros.computed.load(Ordering::Relaxed) <= 1);
}

#[test]
fn a_panic_ahead_of_one_reader_does_not_end_reading_ahead_of_others() {
    let workspace = Workspace::new();
    let attributes = Attributes::read(workspace.path()).unwrap();
    let file = |name, bug| {
        let zeros = Zeros {
            bug,
            ..Zeros::default()
        };
        file_of(name, zeros, attributes)
    };
    let files = vec![file("bug", true), file("good", false)];
    let view = Arc::new(View::new(attributes, files, &[]));
    let reader = Arc::new(Reader::new(view.clone(), 1 << 20));
    let ahead = ReadAhead::start(reader.clone(), 4 * BAND, 1).unwrap();
    for name in ["bug", "good"] {
        let entry = view.lookup(View::ROOT, name.as_ref()).unwrap();
        ahead.note(entry, 0..10, Ahead::Tiles);
        ahead.note(entry, 10..20, Ahead::Tiles);
    }
    eventually_cached(&reader, 3 * BAND as usize);
}

#[test]
fn reading_ahead_changes_no_byte() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let entry = plan.shards[0].entry;
    let name = std::path::Path::new(&plan.shards[0].name);
    let expected = read_all(&plan).remove(name).unwrap();
    let what = prop_oneof![Just(Ahead::Tiles), Just(Ahead::Everything)];
    let sizes = (
        0..300_000_usize,
        0..300_000_u64,
        1..4_usize,
        1..50_000_u64,
        what,
    );
    let mut runner = TestRunner::new(Config::with_cases(60));
    let run = |(cache, window, threads, step, what): (usize, u64, usize, u64, Ahead)| {
        let reader = Arc::new(Reader::new(plan.view.clone(), cache));
        let ahead = ReadAhead::start(reader.clone(), window, threads).unwrap();
        let mut at = 0;
        while at < expected.len() as u64 {
            ahead.note(entry, at..at + step, what);
            let mut bytes = vec![0; step as usize];
            let count = reader.read_at(entry, at, &mut bytes).unwrap();
            let wanted = &expected[at as usize..at as usize + count];
            prop_assert!(bytes[..count] == *wanted, "at {at}");
            at += step;
        }
        prop_assert!(reader.cached_bytes() <= cache);
        Ok(())
    };
    runner.run(&sizes, run).unwrap();
}

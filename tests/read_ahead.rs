//! Computing ahead of sequential readers: it changes no byte, follows whoever reads in order, and
//! leaves everybody else alone.

mod common;

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ckptfs::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step};
use ckptfs::read::{ReadAhead, Reader, When};
use ckptfs::recipe::Plan;
use ckptfs::source::Attributes;
use ckptfs::view::{FileContent, SegmentData, TopFile, View};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use common::checkpoint::{Checkpoint, bf16};
use common::readback::read_all;
use common::{Workspace, plan_by_rules};

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
    let ahead = ReadAhead::start(reader.clone(), 4 * CODES, 2, When::Always).unwrap();
    let start = data_start(&plan);
    ahead.note(entry, start..start + 100);
    ahead.note(entry, start + 100..start + 200);
    // The tile that is being read is the reader's own; the next three or four are not.
    eventually_cached(&reader, 3 * CODES as usize);
    drop(ahead);
    assert!(reader.cached_bytes() as u64 <= 5 * (CODES + 4));
}

#[test]
fn reads_here_and_there_compute_nothing_ahead() {
    let workspace = Workspace::new();
    let plan = plan(&workspace);
    let entry = plan.shards[0].entry;
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let ahead = ReadAhead::start(reader.clone(), 4 * CODES, 2, When::Always).unwrap();
    // Each is far from where any other one ended.
    for place in [500, 100, 900, 300, 700] {
        ahead.note(entry, place << 20..(place << 20) + 4096);
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
    let ahead = ReadAhead::start(reader.clone(), 1 << 30, 1, When::Always).unwrap();
    let start = data_start(&plan);
    ahead.note(entry, start..start + 100);
    ahead.note(entry, start + 100..start + 200);
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
    let ahead = ReadAhead::start(reader.clone(), 4 * CODES, 2, When::Always).unwrap();
    ahead.note(entry, start..start + 100);
    ahead.note(entry, start + 100..start + 200);
    drop(ahead);
    let mut again = vec![0; CODES as usize];
    reader.read_at(entry, start, &mut again).unwrap();
    assert!(first == again);
    let error = reader.read_at(entry, start + 2 * CODES, &mut again);
    assert!(matches!(error, Err(ckptfs::Error::SourceChanged { .. })));
}

const BAND: u64 = 1000;

/// Four bands of zeros, unless there is a bug in it.
#[derive(Debug)]
struct Zeros {
    bug: bool,
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

    fn outputs(&self) -> usize {
        1
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
        outputs[0].fill(0);
        Ok(())
    }
}

#[test]
fn a_panic_ahead_of_one_reader_does_not_end_reading_ahead_of_others() {
    let workspace = Workspace::new();
    let attributes = Attributes::read(workspace.path()).unwrap();
    let file = |name: &str, bug| {
        let node = Arc::new(Node::new(name, Vec::new(), Box::new(Zeros { bug })));
        TopFile {
            name: name.into(),
            attributes,
            content: FileContent::new([(
                4 * BAND,
                SegmentData::Computed {
                    node,
                    output: 0,
                    offset: 0,
                },
            )]),
        }
    };
    let files = vec![file("bug", true), file("good", false)];
    let view = Arc::new(View::new(attributes, files, &[]));
    let reader = Arc::new(Reader::new(view.clone(), 1 << 20));
    let ahead = ReadAhead::start(reader.clone(), 4 * BAND, 1, When::Always).unwrap();
    for name in ["bug", "good"] {
        let entry = view.lookup(View::ROOT, name.as_ref()).unwrap();
        ahead.note(entry, 0..10);
        ahead.note(entry, 10..20);
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
    let sizes = (0..300_000_usize, 0..300_000_u64, 1..4_usize, 1..50_000_u64);
    let mut runner = TestRunner::new(Config::with_cases(60));
    let run = |(cache, window, threads, step): (usize, u64, usize, u64)| {
        let reader = Arc::new(Reader::new(plan.view.clone(), cache));
        let ahead = ReadAhead::start(reader.clone(), window, threads, When::Always).unwrap();
        let mut at = 0;
        while at < expected.len() as u64 {
            ahead.note(entry, at..at + step);
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

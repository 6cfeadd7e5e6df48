//! Facts about whole tensors: found once, for any number of readers, and again after a failure.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ckptfs::catalog::{Catalog, Node, Opened, Step, Tensor};
use ckptfs::format;
use ckptfs::kernels::lanes::{Precision, Round};
use ckptfs::layout::{self, Plan, Shards};
use ckptfs::ops::merge::{At, Formula, Lanes, PointwiseKernel, Size};
use ckptfs::read::{Ahead, FactsCache, ReadAhead, Reader};
use ckptfs::recipe::{DEFAULT_SHARD_BYTES, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values};
use crate::common::values::decode;
use crate::common::{Workspace, message};

/// More than one band, not a whole number of them.
const ELEMENTS: usize = (1 << 19) * 9 + 78;

/// Every element minus the mean, then divided by the mean of the magnitudes of that: two passes.
struct Standard {
    /// Counts the elements that tallies were taken of.
    tallied: Arc<AtomicUsize>,
}

impl fmt::Debug for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standard")
    }
}

impl Formula for Standard {
    fn step(&self) -> Step {
        Step::merge("standard")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        for (y, x) in output.iter_mut().zip(inputs.input(0)) {
            *y = ((f64::from(*x) - facts[0]) / facts[1]) as f32;
        }
    }

    fn passes(&self, _working: Precision) -> usize {
        2
    }

    fn tally_len(&self, _working: Precision, _pass: usize, _extent: Size) -> usize {
        1
    }

    #[inline(always)]
    fn tally<R: Round>(
        &self,
        pass: usize,
        facts: &[f64],
        _at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        self.tallied
            .fetch_add(inputs.input(0).len(), Ordering::Relaxed);
        for x in inputs.input(0) {
            tally[0] += match pass {
                0 => f64::from(*x),
                _ => (f64::from(*x) - facts[0]).abs(),
            };
        }
    }

    fn conclude(
        &self,
        _working: Precision,
        _pass: usize,
        extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        facts.push(tally[0] / extent.elements as f64);
    }
}

/// Small whole numbers: sums of them are exact in any order.
fn source() -> TensorData {
    let values: Vec<f32> = (0..ELEMENTS).map(|i| ((i * 7919) % 257) as f32).collect();
    of_values("x", Dtype::BF16, &[ELEMENTS], &values)
}

fn standardized(base: &Path, tallied: &Arc<AtomicUsize>) -> Tensor {
    let catalog = Catalog::from_base(Opened::stored(format::Checkpoint::open(base).unwrap()));
    let formula = Standard {
        tallied: tallied.clone(),
    };
    let inputs = vec![catalog.tensors["x"].clone()];
    PointwiseKernel::tensor(&"x".into(), formula, inputs, Precision::F32, Dtype::F32)
}

fn reader(base: &Path) -> Reader {
    Reader::new(ViewRequest::new(base).plan().unwrap().view, 1 << 20)
}

#[test]
fn facts_are_those_of_the_whole_tensor_and_found_once_for_all_readers() {
    let workspace = Workspace::new();
    let source = source();
    let base = workspace.write("base", &Checkpoint::single([source.clone()]));
    let tallied = Arc::default();
    let tensor = standardized(&base, &tallied);
    let reader = reader(&base);

    let values = decode(Dtype::BF16, &source.bytes);
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / ELEMENTS as f64;
    let spread = values
        .iter()
        .map(|x| (f64::from(*x) - mean).abs())
        .sum::<f64>()
        / ELEMENTS as f64;
    thread::scope(|scope| {
        for start in [0, 5, ELEMENTS / 2, ELEMENTS - 100] {
            let (reader, tensor, values) = (&reader, &tensor, &values);
            scope.spawn(move || {
                let mut bytes = vec![0; 400];
                reader
                    .read_tensor(tensor, 4 * start as u64, &mut bytes)
                    .unwrap();
                for (found, x) in decode(Dtype::F32, &bytes).iter().zip(&values[start..]) {
                    let expected = (f64::from(*x) - mean) / spread;
                    assert!(
                        (f64::from(*found) - expected).abs() < 1e-6,
                        "{found} for {expected}"
                    );
                }
            });
        }
    });
    assert_eq!(
        tallied.load(Ordering::Relaxed),
        2 * ELEMENTS,
        "every element once in each pass"
    );
    let facts_cost: u64 = tensor.nodes().map(Node::surveyed_bytes).sum();
    assert_eq!(facts_cost, 2 * 2 * ELEMENTS as u64);
    let facts = reader.stats().fact_stats();
    assert_eq!(facts.surveys, 1);
    assert!(facts.seconds > 0.0);
}

#[test]
fn a_source_that_changed_fails_the_facts_and_so_the_bytes() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([source()]));
    let tensor = standardized(&base, &Arc::default());
    let reader = reader(&base);
    let file = base.join("model.safetensors");
    let changed = OpenOptions::new().write(true).open(&file).unwrap();
    changed
        .write_all_at(&[1], file.metadata().unwrap().len() - 1)
        .unwrap();

    for _ in 0..2 {
        let error = message(reader.read_tensor(&tensor, 0, &mut [0; 4]));
        assert!(
            error.contains("model.safetensors") && error.contains("changed"),
            "{error}"
        );
    }
}

/// The first bytes of the standardized tensor, and how many elements were tallied for them.
fn first_bytes(base: &Path, cache: &Path) -> (Vec<u8>, usize) {
    let tallied = Arc::default();
    let tensor = standardized(base, &tallied);
    let reader = reader(base).with_facts_cache(FactsCache::new(cache).unwrap());
    let mut bytes = vec![0; 4096];
    reader.read_tensor(&tensor, 0, &mut bytes).unwrap();
    (bytes, tallied.load(Ordering::Relaxed))
}

#[test]
fn facts_on_disk_serve_the_next_reader_of_the_same_sources_only() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([source()]));
    let cache = workspace.path().join("facts");
    let twice = 2 * ELEMENTS;

    let (expected, tallied) = first_bytes(&base, &cache);
    assert_eq!(tallied, twice);
    assert_eq!(first_bytes(&base, &cache), (expected.clone(), 0), "kept");

    // A file that is not what was written is not believed, and written again.
    let facts: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(facts.len(), 1, "{facts:?}");
    let content = fs::read(&facts[0]).unwrap();
    for broken in [
        &content[..content.len() - 1],
        &[],
        &[content.as_slice(), &[0]].concat(),
    ] {
        fs::write(&facts[0], broken).unwrap();
        assert_eq!(first_bytes(&base, &cache), (expected.clone(), twice));
        assert_eq!(fs::read(&facts[0]).unwrap(), content);
    }
    for at in 0..content.len() {
        let mut broken = content.clone();
        broken[at] ^= 1;
        fs::write(&facts[0], broken).unwrap();
        assert_eq!(
            first_bytes(&base, &cache),
            (expected.clone(), twice),
            "byte {at}"
        );
    }

    // The same bytes in another file are another source, and so is the same file once written to.
    let copy = workspace.write("copy", &Checkpoint::single([source()]));
    assert_eq!(first_bytes(&copy, &cache), (expected.clone(), twice));
    let file = OpenOptions::new()
        .write(true)
        .open(base.join("model.safetensors"))
        .unwrap();
    let len = file.metadata().unwrap().len();
    file.write_all_at(&[0x43, 0x80], len - 2).unwrap();
    let (bytes, tallied) = first_bytes(&base, &cache);
    assert_eq!(tallied, twice);
    assert_ne!(bytes, expected, "the last element counts in the mean");
}

#[test]
fn reading_in_order_finds_the_facts_of_the_next_tensor_ahead() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([source(), bf16("y", &[64])]));
    let mut catalog = Catalog::from_base(Opened::stored(format::Checkpoint::open(&base).unwrap()));
    let tallied: Vec<Arc<AtomicUsize>> = vec![Arc::default(), Arc::default()];
    for (name, tallied) in ["x", "y"].into_iter().zip(&tallied) {
        let formula = Standard {
            tallied: tallied.clone(),
        };
        let inputs = vec![catalog.tensors[name].clone()];
        let tensor =
            PointwiseKernel::tensor(&name.into(), formula, inputs, Precision::F32, Dtype::F32);
        catalog.tensors.insert(name.into(), tensor);
    }
    let Plan { view, shards, .. } =
        layout::shards(catalog, Shards::Repack, DEFAULT_SHARD_BYTES).unwrap();
    let reader = Arc::new(Reader::new(view, 16 << 20));
    let ahead = ReadAhead::start(reader, 0, 1).unwrap();
    let start = shards[0]
        .tensors
        .iter()
        .find(|t| *t.name == *"x")
        .unwrap()
        .offset;
    ahead.note(shards[0].entry, start..start + 4096, Ahead::Tiles);
    ahead.note(shards[0].entry, start + 4096..start + 8192, Ahead::Tiles);

    let deadline = Instant::now() + Duration::from_secs(60);
    while tallied[1].load(Ordering::Relaxed) < 2 * 64 {
        assert!(
            Instant::now() < deadline,
            "the facts of y are not looked for"
        );
        thread::yield_now();
    }
    assert_eq!(
        tallied[0].load(Ordering::Relaxed),
        0,
        "nobody reads x itself"
    );
}

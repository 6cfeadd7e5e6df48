//! Facts about whole tensors: found once, for any number of readers, and again after a failure.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ckptfs::catalog::{Catalog, Tensor};
use ckptfs::kernels::lanes::{Precision, Round};
use ckptfs::ops::merge::{At, Extent, Formula, Lanes, PointwiseKernel};
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;
use ckptfs::source;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::values::decode;
use crate::common::{Workspace, message};

/// More than one band, not a whole number of them.
const ELEMENTS: usize = (1 << 19) * 9 + 77;

/// Every element minus the mean, then divided by the mean of the magnitudes of that: two passes.
#[derive(Debug, Default)]
struct Standard {
    tallied: Arc<AtomicUsize>,
}

impl Formula for Standard {
    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        for (y, x) in output.iter_mut().zip(inputs.input(0)) {
            *y = ((f64::from(*x) - facts[0]) / facts[1]) as f32;
        }
    }

    fn passes(&self, _working: Precision) -> usize {
        2
    }

    fn tally_len(&self, _working: Precision, _pass: usize, _extent: Extent) -> usize {
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
        extent: Extent,
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

fn standardized(base: &std::path::Path, tallied: &Arc<AtomicUsize>) -> Tensor {
    let catalog = Catalog::from_base(source::Checkpoint::open(base).unwrap());
    let formula = Standard {
        tallied: tallied.clone(),
    };
    let inputs = vec![catalog.tensors["x"].clone()];
    PointwiseKernel::tensor(&"x".into(), formula, inputs, Precision::F32, Dtype::F32)
}

fn reader(base: &std::path::Path) -> Reader {
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
    let facts_cost = match &tensor.data {
        ckptfs::catalog::Data::Computed { node, .. } => node.surveyed_bytes(),
        _ => unreachable!("it is computed"),
    };
    assert_eq!(facts_cost, 2 * 2 * ELEMENTS as u64);
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

//! Tensors that are computed before they are quantized: sources are read through the same reader.

use std::ops::Range;
use std::sync::Arc;

use ckptfs::catalog::{Band, Catalog, Kernel, Node, NonFinite, Opened, RowBands, Step, Tensor};
use ckptfs::format;
use ckptfs::inspect::{check_values, quantized_tensors};
use ckptfs::layout::{self, Shards};
use ckptfs::ops::{Operator, PartialBlocks, Quantize, Selection};
use ckptfs::quant::fp8_block::{Fp8BlockEncoding, ScaleFormat};
use ckptfs::recipe::{DEFAULT_SHARD_BYTES, Plan};
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::readback::reader;
use crate::naive::Naive;
use crate::try_inspect;

const ROWS: usize = 300;
const COLUMNS: usize = 40;
const ROW_BYTES: u64 = 2 * COLUMNS as u64;

/// Turns a BF16 matrix upside down, 7 rows at a time.
#[derive(Debug)]
struct UpsideDown;

impl UpsideDown {
    fn bytes(rows: &Range<u64>) -> Range<u64> {
        rows.start * ROW_BYTES..rows.end * ROW_BYTES
    }
}

impl Kernel for UpsideDown {
    fn identity(&self) -> String {
        "upside down".to_owned()
    }

    fn step(&self, _output: usize) -> Option<Step> {
        None
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: ROWS as u64,
            band_rows: 7,
        }
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let rows = ROWS as u64;
        Self::bytes(&(rows - band.rows.end..rows - band.rows.start))
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        Self::bytes(&band.rows)
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        outputs[0].copy_from_slice(&upside_down(inputs[0]));
        Ok(())
    }
}

fn upside_down(matrix: &[u8]) -> Vec<u8> {
    matrix
        .chunks(ROW_BYTES as usize)
        .rev()
        .flatten()
        .copied()
        .collect()
}

/// A view of `source` upside down, then quantized.
fn plan(workspace: &Workspace, source: &TensorData) -> Plan {
    let base = workspace.write("base", &Checkpoint::single([source.clone()]));
    let mut catalog = Catalog::from_base(Opened::stored(format::Checkpoint::open(&base).unwrap()));
    let stored = catalog.tensors[&*source.name].clone();
    let node = Node::new(&*source.name, vec![stored.clone()], Box::new(UpsideDown));
    let computed = Tensor::computed(Arc::new(node), 0, stored.dtype, stored.shape, stored.home);
    catalog
        .tensors
        .insert(source.name.as_str().into(), computed);
    let fp8 = Quantize {
        selection: Selection::new(None, &[], &[".*".to_owned()]).unwrap(),
        encoding: Box::new(Fp8BlockEncoding {
            allows_rounding: false,
            scale_format: ScaleFormat::Float32,
        }),
        partial_blocks: PartialBlocks::Quantize,
        allows_rounding: false,
    };
    fp8.apply(&mut catalog).unwrap();
    layout::shards(catalog, Shards::Keep, DEFAULT_SHARD_BYTES).unwrap()
}

#[test]
fn what_is_measured_is_the_computed_source() {
    let source = tensor("x", Dtype::BF16, &[ROWS, COLUMNS], 8);
    let workspace = Workspace::new();
    let inspection = try_inspect(&plan(&workspace, &source)).unwrap();
    let turned = TensorData::new("x", source.dtype, &source.shape, upside_down(&source.bytes));
    Naive::of([&turned], ScaleFormat::Float32).assert_is(&inspection.total, "upside down");
}

#[test]
fn values_are_checked_in_the_computed_source() {
    let mut source = tensor("x", Dtype::BF16, &[ROWS, COLUMNS], 8);
    let mut bytes = source.bytes.to_vec();
    bytes[2 * (10 * COLUMNS + 3)..][..2].copy_from_slice(&[0x80, 0xff]); // -inf
    source.bytes = bytes.into();
    let workspace = Workspace::new();
    let plan = plan(&workspace, &source);
    let found = check_values(&reader(&plan), &quantized_tensors(&plan), 2, &()).unwrap();
    let [found] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((found.total(), found.negative_infinity), (1, 1));
    let place = found.places[0];
    assert_eq!((place.row, place.column), (ROWS as u64 - 1 - 10, 3));
    assert_eq!(place.value, f32::NEG_INFINITY);
}

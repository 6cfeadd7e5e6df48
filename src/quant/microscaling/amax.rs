//! The largest magnitude of a weight, and of all that share it: a fact about whole tensors, which is
//! found once, for all readers.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step, Survey, Tensor};
use crate::kernels::CpuPath;
use crate::kernels::microscaling::amax;
use crate::tensor::{Dtype, Name};

/// The largest magnitude of `weights`, F32 `[1]`, by their names: output 0 of a node with a single band.
pub(super) fn of_all(weights: &[(&Name, &Tensor)]) -> Tensor {
    let each = weights.iter().map(|(name, weight)| of_one(name, weight));
    let inputs: Vec<Tensor> = each.collect();
    let (name, weight) = weights[0];
    let node = Node::new(name.clone(), inputs, Box::new(LargestKernel));
    Tensor::computed(Arc::new(node), 0, Dtype::F32, vec![1], weight.home)
}

fn of_one(name: &Name, weight: &Tensor) -> Tensor {
    let columns = *weight.shape.last().expect("a matrix");
    let kernel = AmaxKernel {
        rows: weight.shape.iter().rev().skip(1).product(),
        columns,
        dtype: weight.dtype,
        path: CpuPath::best(),
    };
    let node = Node::new(name.clone(), vec![weight.clone()], Box::new(kernel));
    Tensor::computed(Arc::new(node), 0, Dtype::F32, vec![1], weight.home)
}

/// Input `i` is the largest magnitude of weight `i`; output 0 the largest of all.
#[derive(Debug)]
struct LargestKernel;

const ONE_BAND: RowBands = RowBands {
    groups: 1,
    rows_per_group: 1,
    band_rows: 1,
};

fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

impl Kernel for LargestKernel {
    fn identity(&self) -> String {
        "largest of all".to_owned()
    }

    fn bands(&self) -> RowBands {
        ONE_BAND
    }

    fn input_bytes(&self, _input: usize, _band: &Band) -> Range<u64> {
        0..4
    }

    fn output_bytes(&self, _output: usize, _band: &Band) -> Range<u64> {
        0..4
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let largest = inputs.iter().map(|bytes| f32_of(bytes)).fold(0.0, f32::max);
        outputs[0].copy_from_slice(&largest.to_le_bytes());
        Ok(())
    }
}

/// Input 0 is a weight; output 0, which its first band gives, its largest magnitude.
#[derive(Debug)]
struct AmaxKernel {
    rows: u64,
    columns: u64,
    dtype: Dtype,
    path: CpuPath,
}

impl AmaxKernel {
    fn element_bytes(&self) -> u64 {
        self.dtype.bitsize() as u64 / 8
    }

    /// The largest magnitude of elements, or the position of the first that is not finite.
    fn amax(&self, source: &[u8]) -> std::result::Result<f32, (usize, f32)> {
        match self.dtype {
            Dtype::BF16 => amax::<bf16>(source, self.path),
            Dtype::F16 => amax::<f16>(source, self.path),
            _ => amax::<f32>(source, self.path),
        }
    }
}

impl Kernel for AmaxKernel {
    fn identity(&self) -> String {
        let AmaxKernel {
            rows,
            columns,
            dtype,
            ..
        } = self;
        format!("largest magnitude of {dtype:?} {rows} x {columns}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(Step::new("largest_magnitude"))
    }

    fn bands(&self) -> RowBands {
        const BAND_BYTES: u64 = 1 << 20;
        let row_bytes = (self.columns * self.element_bytes()).max(1);
        RowBands {
            groups: 1,
            // At least one, which gives the output.
            rows_per_group: self.rows.max(1),
            band_rows: (BAND_BYTES / row_bytes).max(1),
        }
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let row_bytes = self.columns * self.element_bytes();
        let end = band.rows.end.min(self.rows);
        band.rows.start * row_bytes..end * row_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        if band.index == 0 { 0..4 } else { 4..4 }
    }

    fn survey(&self) -> Option<&dyn Survey> {
        Some(self)
    }

    fn compute(
        &self,
        facts: &[f64],
        band: &Band,
        _inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> std::result::Result<(), NonFinite> {
        let [amax, place, value] = facts else {
            unreachable!("as concluded");
        };
        if *place > 0.0 {
            let element = *place as u64 - 1;
            return Err(NonFinite {
                // Rows are counted from the beginning of the only group.
                row: element / self.columns,
                column: element % self.columns,
                value: *value as f32,
                scale: None,
            });
        }
        if band.index == 0 {
            outputs[0].copy_from_slice(&(*amax as f32).to_le_bytes());
        }
        Ok(())
    }
}

/// A tally is the largest magnitude, and of the first element that is not finite its position plus 1 and its
/// value.
impl Survey for AmaxKernel {
    fn passes(&self) -> usize {
        1
    }

    fn tally_len(&self, _pass: usize) -> usize {
        3
    }

    fn tally(
        &self,
        _pass: usize,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        tally: &mut [f64],
    ) {
        let found = match self.amax(inputs[0]) {
            Ok(amax) => [f64::from(amax), 0.0, 0.0],
            Err((at, value)) => {
                let at = band.rows.start * self.columns + at as u64;
                [0.0, at as f64 + 1.0, f64::from(value)]
            }
        };
        self.join(tally, &found);
    }

    fn join(&self, tally: &mut [f64], other: &[f64]) {
        tally[0] = tally[0].max(other[0]);
        if tally[1] == 0.0 {
            tally[1..].copy_from_slice(&other[1..]);
        }
    }

    fn conclude(&self, _pass: usize, tally: &[f64], facts: &mut Vec<f64>) {
        facts.extend_from_slice(tally);
    }
}

//! New rows of a tensor, and the kernel that makes them.

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Band, Kernel, Node, NonFinite, RowBands, Step, Survey, Tensor};
use crate::kernels::lanes::Precision;
use crate::kernels::{CpuPath, numbers};
use crate::named::{Named, named};
use crate::ops::conversion;
use crate::tensor::Dtype;

/// What new rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pad {
    #[default]
    Zeros,
    /// The mean of all rows that there are.
    Mean,
}

named!(Pad {
    Zeros: "zeros",
    Mean: "mean",
});

/// The rows of `shape` that follow those of `tensor`, called `name`.
pub(in crate::ops) fn rows(name: &str, tensor: &Tensor, shape: Vec<u64>, pad: Pad) -> Tensor {
    let (dtype, old, new) = (tensor.dtype, tensor.shape[0], shape[0]);
    let row_bytes = tensor.len() / old;
    let kernel = PadKernel {
        dtype,
        pad,
        old,
        new,
        row_bytes,
        columns: row_bytes / (dtype.bitsize() as u64 / 8),
    };
    let node = Node::new(name, vec![tensor.clone()], Box::new(kernel));
    Tensor::computed(Arc::new(node), 0, dtype, shape, tensor.home)
}

/// Input 0 is the tensor, output 0 the rows that follow it. Its bands are of all rows, those of the tensor and
/// the new ones, so that the mean is surveyed in bands; of zeros, they are of the new rows alone.
#[derive(Debug)]
struct PadKernel {
    dtype: Dtype,
    pad: Pad,
    old: u64,
    new: u64,
    row_bytes: u64,
    columns: u64,
}

impl PadKernel {
    /// Bytes of rows that are read, or made, at once. The mean depends on it.
    const BAND_BYTES: u64 = 1 << 20;

    /// The rows among the bands that are not new.
    fn read(&self) -> u64 {
        match self.pad {
            Pad::Zeros => 0,
            Pad::Mean => self.old,
        }
    }

    /// The bytes of the mean row.
    fn mean(&self, facts: &[f64]) -> Vec<u8> {
        let means: Vec<u8> = facts.iter().flat_map(|mean| mean.to_le_bytes()).collect();
        let Some(precision) = Precision::from_dtype(self.dtype) else {
            return means;
        };
        let mut row = vec![0; self.row_bytes as usize];
        let convert = conversion(Dtype::F64, precision).expect("F64 is a dtype of numbers");
        convert(&means, &mut row, CpuPath::best());
        row
    }
}

impl Kernel for PadKernel {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let step = Step::new("pad").with("rows", self.new);
        Some(step.with("with", self.pad.name()))
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.read() + self.new,
            band_rows: (Self::BAND_BYTES / self.row_bytes).max(1),
        }
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        let read = self.read();
        band.rows.start.min(read) * self.row_bytes..band.rows.end.min(read) * self.row_bytes
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let bytes = |row: u64| row.saturating_sub(self.read()) * self.row_bytes;
        bytes(band.rows.start)..bytes(band.rows.end)
    }

    fn survey(&self) -> Option<&dyn Survey> {
        match self.pad {
            Pad::Zeros => None,
            Pad::Mean => Some(self),
        }
    }

    fn compute(
        &self,
        facts: &[f64],
        _band: &Band,
        _inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        match self.pad {
            Pad::Zeros => outputs[0].fill(0),
            Pad::Mean => {
                let mean = self.mean(facts);
                let rows = outputs[0].chunks_exact_mut(mean.len());
                rows.for_each(|row| row.copy_from_slice(&mean));
            }
        }
        Ok(())
    }
}

/// One pass: the sums of columns.
impl Survey for PadKernel {
    fn passes(&self) -> usize {
        1
    }

    fn tally_len(&self, _pass: usize) -> usize {
        self.columns as usize
    }

    fn wants(&self, _pass: usize, _facts: &[f64], band: &Band) -> bool {
        band.rows.start < self.old
    }

    fn tally(
        &self,
        _pass: usize,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        tally: &mut [f64],
    ) {
        let mut values = Vec::with_capacity(tally.len());
        for row in inputs[0].chunks_exact(self.row_bytes as usize) {
            numbers::decode(self.dtype, row, &mut values);
            for (sum, value) in tally.iter_mut().zip(&values) {
                *sum += value;
            }
        }
    }

    fn conclude(&self, _pass: usize, tally: &[f64], facts: &mut Vec<f64>) {
        let means = tally.iter().map(|sum| sum / self.old as f64);
        // Which NaN an operation gives is not the same everywhere.
        facts.extend(means.map(|mean| if mean.is_nan() { f64::NAN } else { mean }));
    }
}

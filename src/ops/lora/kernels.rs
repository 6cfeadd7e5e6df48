//! The kernel half of LoRA: a weight and its product, band by band.

use std::ops::Range;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Tensor, as_written};
use crate::kernels::CpuPath;
use crate::kernels::low_rank::{self, Finish};
use crate::ops::lora::addition::{Addition, Matrix};
use crate::ops::lora::columns::{column_factors, column_squares};
use crate::ops::lora::factors::{F32, computed, with_float};
use crate::tensor::Dtype;

/// The two factors, brought into form, and how they join a weight.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// All groups; `None` for a row of ones (of rank 1 only).
    pub left: Option<Tensor>,
    /// All groups.
    pub right: Tensor,
    pub rank: u64,
    pub scale: f32,
    /// Which row of `left` belongs to the first row of the weight.
    pub first_row: u64,
    /// Rows of a group of `left`.
    pub left_rows: u64,
    /// Which group of `right` belongs to the first group of the weight.
    pub first_group: u64,
    pub join: Join,
}

/// How the product joins the weight, as [`Finish`] has it.
#[derive(Debug, Clone)]
pub(super) enum Join {
    Add,
    AddRounded,
    /// DoRA with the norms of rows; the magnitudes as a left factor of one column.
    RowMagnitudes(Tensor),
    /// DoRA with the norms of columns; the magnitudes as they are stored.
    ColumnMagnitudes(Tensor),
}

/// `weight` with `change` merged into it.
pub(super) fn merged(name: &str, weight: Tensor, matrix: Matrix, change: LowRank) -> Tensor {
    let LowRank { left, right, .. } = change.clone();
    let mut inputs = vec![weight.clone(), right];
    let has_left = left.is_some();
    inputs.extend(left);
    let base = Addition {
        matrix,
        rank: change.rank,
        scale: change.scale,
        has_left,
        first_row: change.first_row,
        left_rows: change.left_rows,
        first_group: change.first_group,
        path: CpuPath::best(),
    };
    let kind = match change.join {
        Join::Add => Kind::Add,
        Join::AddRounded => Kind::AddRounded,
        Join::RowMagnitudes(magnitudes) => {
            inputs.push(magnitudes);
            Kind::RowLengths
        }
        Join::ColumnMagnitudes(magnitudes) => {
            let squares = column_squares(name, inputs.clone(), base);
            inputs.push(column_factors(name, squares, magnitudes, matrix.columns));
            Kind::ColumnFactors
        }
    };
    let (dtype, shape) = (weight.dtype, weight.shape.clone());
    let bands = matrix.bands(base.rank, MergeKernel::BAND_BYTES);
    let kernel = MergeKernel { base, kind, bands };
    computed(name, inputs, dtype, shape, Box::new(kernel))
}

/// What a merge does, in words.
pub(super) fn step(is_dora: bool, rank: u64, scale: f32) -> Step {
    let kind = if is_dora { "DoRA" } else { "LoRA" };
    Step::new("lora")
        .with("kind", kind)
        .with("rank", rank)
        .with("scaling", as_written(scale))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Add,
    AddRounded,
    RowLengths,
    ColumnFactors,
}

/// The merged weight. A further input, the last one, has the lengths of rows or factors of columns.
#[derive(Debug)]
struct MergeKernel {
    base: Addition,
    kind: Kind,
    bands: RowBands,
}

impl MergeKernel {
    /// Bytes of the weight that are worth computing at once.
    const BAND_BYTES: u64 = 1 << 20;
}

impl Kernel for MergeKernel {
    fn identity(&self) -> String {
        format!("{:?} {}", self.kind, self.base.identity())
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let is_dora = matches!(self.kind, Kind::RowLengths | Kind::ColumnFactors);
        Some(step(is_dora, self.base.rank, self.base.scale))
    }

    fn bands(&self) -> RowBands {
        self.bands
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let shared = self.base.input_bytes(input, band);
        shared.unwrap_or_else(|| match self.kind {
            Kind::RowLengths => band.rows.start * F32..band.rows.end * F32,
            _ => 0..self.base.matrix.columns * F32,
        })
    }

    fn shares_input(&self, input: usize) -> bool {
        input > 0
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        self.base.matrix.bytes(band)
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let base = &self.base;
        let last = inputs[inputs.len() - 1];
        let finish = match self.kind {
            Kind::Add => Finish::Add,
            Kind::AddRounded => Finish::AddRounded,
            Kind::RowLengths => Finish::RowLengths(last),
            Kind::ColumnFactors => Finish::ColumnFactors(last),
        };
        let columns = base.matrix.columns as usize;
        let product = base.product(inputs);
        let (weight, sums) = (inputs[0], &mut *outputs[0]);
        with_float!(base.matrix.dtype, T => {
            low_rank::add::<T>(weight, columns, &product, finish, sums, base.path);
        });
        Ok(())
    }
}

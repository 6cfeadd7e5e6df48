//! The kernel half of LoRA: a weight and its product, band by band.

use std::ops::Range;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Tensor, as_written};
use crate::kernels::CpuPath;
use crate::kernels::low_rank::{self, Finish, PANEL, Product};
use crate::ops::lora_columns::{column_factors, column_squares};
use crate::ops::lora_factors::{F32, computed, with_float};
use crate::tensor::Dtype;

/// A weight seen as `groups` matrices of `rows` × `columns`, all at least 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub groups: u64,
    pub rows: u64,
    pub columns: u64,
    pub dtype: Dtype,
}

impl Matrix {
    fn element_bytes(&self) -> u64 {
        self.dtype.bitsize() as u64 / 8
    }

    /// Bands that hold about `bytes` bytes of the weight, and no more of a left factor.
    pub(super) fn bands(&self, rank: u64, bytes: u64) -> RowBands {
        let row_bytes = (self.columns * self.element_bytes()).max(rank * F32);
        RowBands {
            groups: self.groups,
            rows_per_group: self.rows,
            band_rows: (bytes / row_bytes).max(1),
        }
    }

    /// Bytes of `band`.
    fn bytes(&self, band: &Band) -> Range<u64> {
        let first = band.group * self.rows;
        let row_bytes = self.columns * self.element_bytes();
        (first + band.rows.start) * row_bytes..(first + band.rows.end) * row_bytes
    }
}

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
    let base = Base {
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
    let bands = matrix.bands(base.rank, Merge::BAND_BYTES);
    let kernel = Merge { base, kind, bands };
    computed(name, inputs, dtype, shape, Box::new(kernel))
}

/// What kernels that add the product to the weight have in common. Input 0 is the weight, input 1
/// the right factor, input 2 the left one if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    pub matrix: Matrix,
    pub rank: u64,
    scale: f32,
    has_left: bool,
    first_row: u64,
    left_rows: u64,
    first_group: u64,
    pub path: CpuPath,
}

impl Base {
    /// For [`Kernel::identity`].
    pub(super) fn identity(&self) -> String {
        let Base {
            matrix,
            rank,
            scale,
            has_left,
            first_row,
            left_rows,
            first_group,
            path: _,
        } = self;
        format!(
            "low rank {rank} by {scale:?}, {has_left} {first_row} {left_rows} {first_group}, {matrix:?}"
        )
    }

    /// The bytes of one of these inputs.
    pub(super) fn input_bytes(&self, input: usize, band: &Band) -> Option<Range<u64>> {
        match input {
            0 => Some(self.matrix.bytes(band)),
            1 => {
                let columns = self.matrix.columns.next_multiple_of(PANEL as u64);
                let bytes = self.rank * columns * F32;
                let group = self.first_group + band.group;
                Some(group * bytes..(group + 1) * bytes)
            }
            2 if self.has_left => {
                let first = self.first_row + band.group * self.left_rows;
                let bytes = self.rank * F32;
                Some((first + band.rows.start) * bytes..(first + band.rows.end) * bytes)
            }
            _ => None,
        }
    }

    /// The product that belongs to these inputs.
    pub(super) fn product<'a>(&self, inputs: &[&'a [u8]]) -> Product<'a> {
        const ONE: [u8; 4] = 1.0f32.to_le_bytes();
        Product {
            left: if self.has_left { inputs[2] } else { &ONE },
            right: inputs[1],
            rank: self.rank as usize,
            scale: self.scale,
        }
    }
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
struct Merge {
    base: Base,
    kind: Kind,
    bands: RowBands,
}

impl Merge {
    /// Bytes of the weight that are worth computing at once.
    const BAND_BYTES: u64 = 1 << 20;
}

impl Kernel for Merge {
    fn identity(&self) -> String {
        format!("{:?} {}", self.kind, self.base.identity())
    }

    fn step(&self, _output: usize) -> Option<Step> {
        let kind = match self.kind {
            Kind::Add | Kind::AddRounded => "LoRA",
            Kind::RowLengths | Kind::ColumnFactors => "DoRA",
        };
        let step = Step::new("lora")
            .with("kind", kind)
            .with("rank", self.base.rank)
            .with("scaling", as_written(self.base.scale));
        Some(step)
    }

    fn bands(&self) -> RowBands {
        self.bands
    }

    fn outputs(&self) -> usize {
        1
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let shared = self.base.input_bytes(input, band);
        shared.unwrap_or_else(|| match self.kind {
            Kind::RowLengths => band.rows.start * F32..band.rows.end * F32,
            _ => 0..self.base.matrix.columns * F32,
        })
    }

    fn keeps(&self, input: usize) -> bool {
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

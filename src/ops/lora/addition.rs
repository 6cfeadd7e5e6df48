//! What is added to a weight: a product of two factors, and where the bytes of all three lie.

use std::ops::Range;

use crate::catalog::{Band, RowBands};
use crate::kernels::CpuPath;
use crate::kernels::low_rank::{PANEL, Product};
use crate::ops::lora::factors::F32;
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
    pub(super) fn element_bytes(&self) -> u64 {
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
    pub(super) fn bytes(&self, band: &Band) -> Range<u64> {
        let first = band.group * self.rows;
        let row_bytes = self.columns * self.element_bytes();
        (first + band.rows.start) * row_bytes..(first + band.rows.end) * row_bytes
    }
}

/// What kernels that add the product to the weight have in common. Input 0 is the weight, input 1
/// the right factor, input 2 the left one if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addition {
    pub matrix: Matrix,
    pub rank: u64,
    pub scale: f32,
    pub has_left: bool,
    pub first_row: u64,
    pub left_rows: u64,
    pub first_group: u64,
    pub path: CpuPath,
}

impl Addition {
    /// For [`Kernel::identity`].
    pub(super) fn identity(&self) -> String {
        let Addition {
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

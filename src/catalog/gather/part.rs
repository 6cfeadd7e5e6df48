//! Matrices that are put together, as numbers alone.

use crate::tensor::Axis;

/// A matrix that is made of columns of others; with outer axes, many of them one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Gather {
    /// For each index of these axes, the last of which counts fastest, there is another matrix, whose elements
    /// begin `index · stride` later in every input. Most have none.
    pub outer: Vec<Axis>,
    pub rows: u64,
    pub columns: u64,
    /// Together they have every column once.
    pub parts: Vec<Part>,
}

/// Columns of a matrix, from one input. All numbers count elements.
///
/// Of row `r`, column `first + step · j` is the element `start + r · row_stride + j · column_stride` of
/// the input, for each `j` less than `count`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub start: u64,
    pub row_stride: u64,
    pub column_stride: u64,
    pub first: u64,
    pub step: u64,
    pub count: u64,
}

impl Gather {
    /// The number of matrices.
    pub(super) fn groups(&self) -> u64 {
        self.outer.iter().map(|axis| axis.len).product()
    }

    /// How many elements later than those of the first matrix those of matrix `group` begin.
    pub(super) fn group_start(&self, mut group: u64) -> u64 {
        let mut start = 0;
        for axis in self.outer.iter().rev() {
            start += group % axis.len * axis.stride;
            group /= axis.len;
        }
        start
    }
}

impl Part {
    /// `count` columns from `first` on, whose elements follow each other in each row of the input, from
    /// `start` on.
    pub(crate) fn run(start: u64, row_stride: u64, first: u64, count: u64) -> Self {
        Part {
            start,
            row_stride,
            column_stride: 1,
            first,
            step: 1,
            count,
        }
    }
}

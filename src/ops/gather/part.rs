//! A matrix that is put together, as numbers alone.

/// A matrix that is made of columns of others.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Gather {
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
pub(in crate::ops) struct Part {
    pub start: u64,
    pub row_stride: u64,
    pub column_stride: u64,
    pub first: u64,
    pub step: u64,
    pub count: u64,
}

impl Part {
    /// `count` columns from `first` on, whose elements follow each other in each row of the input, from
    /// `start` on.
    pub(super) fn run(start: u64, row_stride: u64, first: u64, count: u64) -> Self {
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

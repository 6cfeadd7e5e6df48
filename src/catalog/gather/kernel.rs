//! The kernel half: bands of rows of what is gathered, from strips of the inputs.

use std::ops::Range;

use crate::catalog::gather::part::{Gather, Part};
use crate::catalog::kernel::{Band, Kernel, NonFinite, NumberKind, RowBands, Strips};
use crate::catalog::step::Step;
use crate::kernels::gather::{self, Strides};

/// Input `i` is that of part `i`; output 0 the matrices.
#[derive(Debug)]
pub(super) struct GatherKernel {
    pub gather: Gather,
    /// Bytes of an element.
    pub width: u64,
}

impl GatherKernel {
    /// Bytes of a band. Where rows become columns, a band needs some elements of each row of an input: the more
    /// there are of them, the fewer reads there are for each byte.
    const BAND_BYTES: u64 = 8 << 20;

    /// What is read of a file at least.
    const PAGE_BYTES: u64 = 4096;
}

impl Part {
    /// Whether elements that are next to each other in an input are in different rows.
    fn turns_rows(&self) -> bool {
        self.column_stride > self.row_stride
    }

    /// The elements that `rows` of the first matrix need, as strips of elements.
    fn strips(&self, rows: &Range<u64>) -> Strips {
        let span = |count: u64, stride: u64| match count {
            0 => 0,
            count => (count - 1) * stride + 1,
        };
        let height = rows.end - rows.start;
        let start = self.start + rows.start * self.row_stride;
        let (len, stride, count) = if self.turns_rows() {
            (
                span(height, self.row_stride),
                self.column_stride,
                self.count,
            )
        } else {
            (
                span(self.count, self.column_stride),
                self.row_stride,
                height,
            )
        };
        Strips {
            first: start..start + len,
            stride,
            count,
        }
    }

    /// The strips that are read apart, if what is between them is not read too.
    fn strips_apart(&self, rows: &Range<u64>, width: u64) -> Option<Strips> {
        let strips = self.strips(rows);
        let len = strips.first.end - strips.first.start;
        let read_anyway = (len * 4).max(GatherKernel::PAGE_BYTES / width);
        (strips.count > 1 && strips.stride > read_anyway).then_some(strips)
    }

    /// Where the elements for `rows` are in what is read.
    fn strides(&self, rows: &Range<u64>, width: u64) -> Strides {
        let (mut row, mut column) = (self.row_stride, self.column_stride);
        if let Some(strips) = self.strips_apart(rows, width) {
            let packed = if self.turns_rows() {
                &mut column
            } else {
                &mut row
            };
            *packed = strips.first.end - strips.first.start;
        }
        Strides {
            row: row as usize,
            column: column as usize,
        }
    }
}

impl Kernel for GatherKernel {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(Step::new("gather"))
    }

    fn number_kind(&self) -> Option<NumberKind> {
        None
    }

    fn bands(&self) -> RowBands {
        let strides = self.gather.parts.iter().map(|part| part.row_stride);
        let row = strides.fold(self.gather.columns, u64::max);
        let row_bytes = row.saturating_mul(self.width);
        RowBands {
            groups: self.gather.groups(),
            rows_per_group: self.gather.rows,
            band_rows: (Self::BAND_BYTES / row_bytes.max(1)).max(1),
        }
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let strips = self.gather.parts[input].strips(&band.rows);
        let group = self.gather.group_start(band.group);
        let last = strips.stride * strips.count.saturating_sub(1);
        let (start, end) = (strips.first.start, strips.first.end + last);
        (group + start) * self.width..(group + end) * self.width
    }

    fn input_strips(&self, input: usize, band: &Band) -> Option<Strips> {
        let strips = self.gather.parts[input].strips_apart(&band.rows, self.width)?;
        let group = self.gather.group_start(band.group);
        let (start, end) = (strips.first.start, strips.first.end);
        Some(Strips {
            first: (group + start) * self.width..(group + end) * self.width,
            stride: strips.stride * self.width,
            count: strips.count,
        })
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let row_bytes = self.gather.columns * self.width;
        let first = band.group * self.gather.rows;
        (first + band.rows.start) * row_bytes..(first + band.rows.end) * row_bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let width = self.width as usize;
        let height = (band.rows.end - band.rows.start) as usize;
        for (part, input) in self.gather.parts.iter().zip(inputs) {
            let from = part.strides(&band.rows, self.width);
            let to = Strides {
                row: self.gather.columns as usize,
                column: part.step as usize,
            };
            let target = &mut outputs[0][part.first as usize * width..];
            gather::copy(
                width,
                [height, part.count as usize],
                input,
                from,
                target,
                to,
            );
        }
        Ok(())
    }
}

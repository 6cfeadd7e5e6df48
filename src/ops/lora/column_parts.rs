//! Some columns of a matrix as a matrix of their own, and put back: gate and up of experts that are
//! stored transposed lie beside each other, or in turns.

use std::ops::Range;

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Step, Tensor};
use crate::ops::lora::addition::Matrix;
use crate::ops::lora::factors::computed;

/// Bytes of the matrix that are worth moving at once.
const BAND_BYTES: u64 = 1 << 20;

/// `count` columns from `first`, each `step` behind the one before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub first: u64,
    pub step: u64,
    pub count: u64,
}

impl Columns {
    /// The bytes of each of them in a row of elements of `width` bytes.
    fn ranges(self, width: usize) -> impl Iterator<Item = Range<usize>> {
        let first = self.first as usize * width;
        let starts = (first..).step_by(self.step as usize * width);
        let starts = starts.take(self.count as usize);
        starts.map(move |start| start..start + width)
    }
}

/// These columns of `tensor`, which is the single group of `matrix`.
pub(super) fn taken(name: &str, tensor: &Tensor, matrix: Matrix, columns: Columns) -> Tensor {
    let shape = [matrix.rows, columns.count];
    let kernel = Take { matrix, columns };
    let inputs = vec![tensor.clone()];
    computed(
        name,
        inputs,
        tensor.dtype,
        shape.as_slice(),
        Box::new(kernel),
    )
}

/// `tensor` with columns that were taken from it replaced, which `step` says in words.
pub(super) fn put_back(
    name: &str,
    tensor: &Tensor,
    matrix: Matrix,
    parts: Vec<(Columns, Tensor)>,
    step: Step,
) -> Tensor {
    let (columns, parts): (Vec<Columns>, Vec<Tensor>) = parts.into_iter().unzip();
    let inputs = std::iter::once(tensor.clone()).chain(parts).collect();
    let kernel = PutBack {
        matrix,
        columns,
        step,
    };
    computed(
        name,
        inputs,
        tensor.dtype,
        tensor.shape.clone(),
        Box::new(kernel),
    )
}

/// The bytes of `band` where a row has so many columns.
fn bytes(matrix: Matrix, columns: u64, band: &Band) -> Range<u64> {
    Matrix { columns, ..matrix }.bytes(band)
}

#[derive(Debug)]
struct Take {
    matrix: Matrix,
    columns: Columns,
}

impl Kernel for Take {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn bands(&self) -> RowBands {
        self.matrix.bands(1, BAND_BYTES)
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        self.matrix.bytes(band)
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        bytes(self.matrix, self.columns.count, band)
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let width = self.matrix.element_bytes() as usize;
        let rows = inputs[0].chunks_exact(self.matrix.columns as usize * width);
        let taken = outputs[0].chunks_exact_mut(self.columns.count as usize * width);
        for (row, taken) in rows.zip(taken) {
            let elements = taken.chunks_exact_mut(width);
            for (element, range) in elements.zip(self.columns.ranges(width)) {
                element.copy_from_slice(&row[range]);
            }
        }
        Ok(())
    }
}

/// Input 0 is the whole, input `i + 1` what takes the place of `columns[i]`.
#[derive(Debug)]
struct PutBack {
    matrix: Matrix,
    columns: Vec<Columns>,
    step: Step,
}

impl Kernel for PutBack {
    fn identity(&self) -> String {
        format!("{:?} of {:?} put back", self.columns, self.matrix)
    }

    fn step(&self, _output: usize) -> Option<Step> {
        Some(self.step.clone())
    }

    fn bands(&self) -> RowBands {
        self.matrix.bands(1, BAND_BYTES)
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        match input.checked_sub(1) {
            None => self.matrix.bytes(band),
            Some(part) => bytes(self.matrix, self.columns[part].count, band),
        }
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        self.matrix.bytes(band)
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let width = self.matrix.element_bytes() as usize;
        let whole = &mut *outputs[0];
        whole.copy_from_slice(inputs[0]);
        for (columns, part) in self.columns.iter().zip(&inputs[1..]) {
            let rows = whole.chunks_exact_mut(self.matrix.columns as usize * width);
            let parts = part.chunks_exact(columns.count as usize * width);
            for (row, part) in rows.zip(parts) {
                let elements = part.chunks_exact(width);
                for (element, range) in elements.zip(columns.ranges(width)) {
                    row[range].copy_from_slice(element);
                }
            }
        }
        Ok(())
    }
}

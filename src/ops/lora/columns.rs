//! What DoRA multiplies each column by where it needs their norms: a fact about the whole weight.

use std::ops::Range;

use half::{bf16, f16};

use crate::catalog::{Band, Kernel, NonFinite, RowBands, Tensor};
use crate::kernels::low_rank::{self, Float};
use crate::ops::lora::addition::Addition;
use crate::ops::lora::factors::{F32, SINGLE_BAND, computed, with_float};
use crate::tensor::Dtype;

/// Bytes of an f64.
const F64: u64 = 8;

/// One matrix of sums of squares: a row for each band, a column for each of the weight.
pub(super) fn column_squares(name: &str, inputs: Vec<Tensor>, base: Addition) -> Tensor {
    let bands = base.matrix.bands(base.rank, ColumnSquares::BAND_BYTES);
    let shape = [bands.count(), base.matrix.columns];
    let kernel = ColumnSquares { base, bands };
    computed(name, inputs, Dtype::F64, shape.as_slice(), Box::new(kernel))
}

/// `magnitudes / norms`, where `squares` has partial sums for the norms in each row.
pub(super) fn column_factors(
    name: &str,
    squares: Tensor,
    magnitudes: Tensor,
    columns: u64,
) -> Tensor {
    let kernel = ColumnFactors {
        columns,
        squares: squares.len(),
        dtype: magnitudes.dtype,
    };
    let inputs = vec![squares, magnitudes];
    computed(
        name,
        inputs,
        Dtype::F32,
        [columns].as_slice(),
        Box::new(kernel),
    )
}

/// Sums of the squares of the merged weight's columns, before it is scaled, for each band.
#[derive(Debug)]
struct ColumnSquares {
    base: Addition,
    bands: RowBands,
}

impl ColumnSquares {
    /// More than a merged tile has, since all sums are held at once.
    const BAND_BYTES: u64 = 4 << 20;
}

impl Kernel for ColumnSquares {
    fn identity(&self) -> String {
        format!(
            "column squares of {}, {:?}",
            self.base.identity(),
            self.bands
        )
    }

    fn bands(&self) -> RowBands {
        self.bands
    }

    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64> {
        let shared = self.base.input_bytes(input, band);
        shared.expect("only the weight and its factors")
    }

    fn shares_input(&self, input: usize) -> bool {
        input > 0
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        let bytes = self.base.matrix.columns * F64;
        band.index * bytes..(band.index + 1) * bytes
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let base = &self.base;
        let columns = base.matrix.columns as usize;
        let mut squares = vec![0.0f64; columns];
        let (weight, product) = (inputs[0], base.product(inputs));
        with_float!(base.matrix.dtype, T => {
            low_rank::add_column_squares::<T>(weight, columns, &product, &mut squares, base.path);
        });
        for (bytes, square) in outputs[0].as_chunks_mut().0.iter_mut().zip(squares) {
            *bytes = square.to_le_bytes();
        }
        Ok(())
    }
}

/// What DoRA multiplies each column by. Input 0 has the sums of squares, input 1 the magnitudes.
#[derive(Debug)]
struct ColumnFactors {
    columns: u64,
    squares: u64,
    dtype: Dtype,
}

impl Kernel for ColumnFactors {
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    fn bands(&self) -> RowBands {
        SINGLE_BAND
    }

    fn input_bytes(&self, input: usize, _band: &Band) -> Range<u64> {
        match input {
            0 => 0..self.squares,
            _ => 0..self.columns * (self.dtype.bitsize() as u64 / 8),
        }
    }

    fn output_bytes(&self, _output: usize, _band: &Band) -> Range<u64> {
        0..self.columns * F32
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        let mut sums = vec![0.0f64; self.columns as usize];
        let squares = inputs[0].as_chunks().0;
        for row in squares.chunks_exact(sums.len()) {
            for (sum, square) in sums.iter_mut().zip(row) {
                *sum += f64::from_le_bytes(*square);
            }
        }
        let factors = outputs[0].as_chunks_mut().0;
        let width = self.dtype.bitsize() / 8;
        let magnitudes = inputs[1].chunks_exact(width);
        for ((factor, magnitude), sum) in factors.iter_mut().zip(magnitudes).zip(sums) {
            let magnitude = with_float!(self.dtype, T => T::read(magnitude));
            *factor = (magnitude / sum.sqrt() as f32).to_le_bytes();
        }
        Ok(())
    }
}

//! The definitions of docs/FIDELITY.md, element by element in f64.

use ckptfs::inspect::Fidelity;
use ckptfs::quant::fp8_block::ScaleFormat;
use safetensors::Dtype;

use crate::common::checkpoint::TensorData;
use crate::common::oracle::numbers::{BLOCK, quantize, value_of};
use crate::common::values::decode;

/// One element: its value, its code's value, its scale, and the block that it is in.
struct Element {
    value: f64,
    code: f64,
    scale: f64,
    block: usize,
}

/// The figures of a set of tensors, all of them quantized with scales of `format`.
#[derive(Debug, Default)]
pub(crate) struct Naive {
    pub(crate) elements: u64,
    pub(crate) blocks: u64,
    pub(crate) zero_blocks: u64,
    pub(crate) signal: f64,
    pub(crate) noise: f64,
    pub(crate) relative_error: f64,
    pub(crate) block_error: f64,
    pub(crate) saturated: u64,
    pub(crate) zero_codes: u64,
    pub(crate) flushed: u64,
    pub(crate) amax: Vec<f64>,
}

impl Naive {
    pub(crate) fn of<'a>(
        tensors: impl IntoIterator<Item = &'a TensorData>,
        format: ScaleFormat,
    ) -> Self {
        let mut naive = Naive::default();
        for tensor in tensors {
            naive.add(&elements(tensor, format));
        }
        naive
    }

    fn add(&mut self, elements: &[Element]) {
        let blocks = elements.iter().map(|e| e.block + 1).max().unwrap_or(0);
        let mut amax = vec![0.0f64; blocks];
        for e in elements {
            amax[e.block] = amax[e.block].max(e.value.abs());
        }
        for e in elements {
            let error = (e.value - e.code * e.scale).abs();
            self.elements += 1;
            self.signal += e.value * e.value;
            self.noise += error * error;
            self.saturated += u64::from(e.code.abs() == 448.0);
            self.zero_codes += u64::from(e.code == 0.0);
            self.flushed += u64::from(e.code == 0.0 && e.value != 0.0);
            if e.code.abs() >= 0.015625 {
                self.relative_error = self.relative_error.max(error / e.value.abs());
            }
            if amax[e.block] != 0.0 {
                self.block_error = self.block_error.max(error / amax[e.block]);
            }
        }
        self.blocks += blocks as u64;
        self.zero_blocks += amax.iter().filter(|amax| **amax == 0.0).count() as u64;
        self.amax.extend(amax.iter().filter(|amax| **amax != 0.0));
    }

    /// Asserts that `measured` says the same: counts and extreme values exactly, sums up to the
    /// order of summation.
    pub(crate) fn assert_is(&self, measured: &Fidelity, what: &str) {
        let counts = (
            measured.elements,
            measured.blocks,
            measured.zero_blocks,
            measured.saturated,
            measured.zero_codes,
            measured.flushed,
        );
        let expected = (
            self.elements,
            self.blocks,
            self.zero_blocks,
            self.saturated,
            self.zero_codes,
            self.flushed,
        );
        assert_eq!(counts, expected, "{what}");
        assert_eq!(
            measured.largest_relative_error, self.relative_error,
            "{what}"
        );
        assert_eq!(measured.largest_block_error, self.block_error, "{what}");
        let amax = measured.amax.map(|amax| [amax.smallest, amax.largest]);
        let smallest = self.amax.iter().copied().reduce(f64::min);
        let largest = self.amax.iter().copied().reduce(f64::max);
        let bounds = smallest.zip(largest).map(|(a, b)| [a as f32, b as f32]);
        assert_eq!(amax, bounds, "{what}");
        assert_close(measured.signal, self.signal, what);
        assert_close(measured.noise, self.noise, what);
        match measured.sqnr_db() {
            Some(db) => assert_close(db, 10.0 * (self.signal / self.noise).log10(), what),
            None => assert_eq!(self.noise, 0.0, "{what}"),
        }
    }
}

/// Asserts that two sums of the same numbers, in whatever order, are equal.
pub(crate) fn assert_close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs();
    assert!(
        error <= 1e-10 * expected.abs(),
        "{what}: {found} instead of {expected}"
    );
}

fn elements(tensor: &TensorData, format: ScaleFormat) -> Vec<Element> {
    let quantized = quantize(tensor, format);
    let values = decode(tensor.dtype, &tensor.bytes);
    let scales = decode(Dtype::F32, &quantized.scale.bytes);
    let [.., rows, columns] = tensor.shape.as_slice() else {
        panic!("{tensor:?} has fewer than two dimensions");
    };
    let [.., scale_rows, scale_columns] = quantized.scale.shape.as_slice() else {
        panic!("{tensor:?} has scales of fewer than two dimensions");
    };
    (0..values.len())
        .map(|i| {
            let (matrix, row, column) = (i / (rows * columns), i / columns % rows, i % columns);
            let block = (matrix * scale_rows + row / BLOCK) * scale_columns + column / BLOCK;
            let code = quantized.weight.bytes[i];
            let sign = if code < 0x80 { 1.0 } else { -1.0 };
            Element {
                value: f64::from(values[i]),
                code: sign * value_of(code & 0x7f),
                scale: f64::from(scales[block]),
                block,
            }
        })
        .collect()
}

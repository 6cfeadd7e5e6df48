//! The contract between an operator's kernel half and the reader.
//!
//! A kernel computes one or more output tensors band by band. The reader finds the band that
//! holds a byte, fetches the input bytes that the kernel asks for, and calls it. A kernel does no
//! I/O and knows nothing of files, caches or flags.

use std::fmt::Debug;
use std::ops::Range;

use crate::catalog::{Fidelity, Step};
use crate::error::Error;
use crate::tensor::Dtype;

/// How the rows of a tensor are divided into bands: each of `groups` groups (the leading
/// dimensions) is cut separately into runs of at most `band_rows` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowBands {
    pub groups: u64,
    pub rows_per_group: u64,
    /// At least 1.
    pub band_rows: u64,
}

/// A run of rows that is computed at once: one tile of each output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band {
    /// The position among all bands.
    pub index: u64,
    pub group: u64,
    /// Rows inside the group.
    pub rows: Range<u64>,
}

impl RowBands {
    /// The number of bands.
    pub fn count(&self) -> u64 {
        self.groups * self.per_group()
    }

    /// Band number `index`, which must be less than [`RowBands::count`].
    pub fn band(&self, index: u64) -> Band {
        let group = index / self.per_group();
        let start = index % self.per_group() * self.band_rows;
        Band {
            index,
            group,
            rows: start..(start + self.band_rows).min(self.rows_per_group),
        }
    }

    fn per_group(&self) -> u64 {
        self.rows_per_group.div_ceil(self.band_rows)
    }
}

/// Runs of bytes, all of one length, that begin equally far from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strips {
    /// The first of them.
    pub first: Range<u64>,
    /// How far it is from the beginning of one to that of the next.
    pub stride: u64,
    pub count: u64,
}

impl Strips {
    /// Bytes of all of them.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        (self.first.end - self.first.start) * self.count
    }

    /// Where each of them is.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let starts = (0..self.count).map(|i| i * self.stride);
        starts.map(|skip| self.first.start + skip..self.first.end + skip)
    }
}

/// A value that cannot be computed with, met while computing a band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NonFinite {
    /// Row inside the band's group.
    pub row: u64,
    pub column: u64,
    pub value: f32,
    /// The scale that its code would have, if `value` is finite and no code is exactly it.
    pub scale: Option<f32>,
}

/// What is known of the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKind {
    /// Nothing.
    Any,
    /// Each is exactly the product of an E2M1 code and a power of two, as MXFP4 stores it.
    Fp4,
    /// Some are such products, or all are, but rounded to a dtype that does not have all of them.
    PartlyFp4,
}

impl NumberKind {
    /// Of E2M1 codes times powers of two as numbers of `dtype`. Such a product is 0, or 2ⁿ or 1.5 · 2ⁿ with n from −128 on:
    /// BF16 and F32 have all of them up to their largest number, and infinity beyond it. F16 begins at 2⁻²⁴.
    pub fn of_fp4_in(dtype: Dtype) -> Self {
        match dtype {
            Dtype::BF16 | Dtype::F32 => Self::Fp4,
            _ => Self::PartlyFp4,
        }
    }

    /// What is known of numbers some of which are `self` and others `other`.
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::PartlyFp4 }
    }
}

/// The kernel half of an operator.
///
/// For every output, the bands in order must produce consecutive byte ranges that cover it.
pub trait Kernel: Debug + Send + Sync {
    /// What it computes, in words that are the same in every process and on every machine: two
    /// kernels with the same identity give the same bytes for the same inputs.
    fn identity(&self) -> String;

    /// What it does, in words for people and programs, to give output number `output`; `None` if
    /// it only brings an input of another kernel into form.
    fn step(&self, _output: usize) -> Option<Step> {
        None
    }

    /// The bands it computes.
    fn bands(&self) -> RowBands;

    /// The number of outputs.
    fn outputs(&self) -> usize {
        1
    }

    /// The bytes of input `input` that are needed for `band`.
    fn input_bytes(&self, input: usize, band: &Band) -> Range<u64>;

    /// What of [`Kernel::input_bytes`] is needed, if that is not all of it: only these strips are read,
    /// and the input is them, one after the other. Not asked of an input that bands share.
    fn input_strips(&self, _input: usize, _band: &Band) -> Option<Strips> {
        None
    }

    /// Whether many bands share what they need of input `input`. The reader then keeps the whole of
    /// it while bands are computed, so it must be small; and it must be output 0 of a node with a
    /// single band, which brings it into the form that the kernel wants.
    fn shares_input(&self, _input: usize) -> bool {
        false
    }

    /// The bytes of output `output` that `band` produces.
    fn output_bytes(&self, output: usize, band: &Band) -> Range<u64>;

    /// What it must know of its whole inputs before it can compute a band; `None` if nothing.
    fn survey(&self) -> Option<&dyn Survey> {
        None
    }

    /// Measures how far its outputs are from its input, if it quantizes one.
    fn error_measure(&self) -> Option<&dyn ErrorMeasure> {
        None
    }

    /// The error where `fault` was met in `band`, if that is not a number which cannot be quantized. The reader says of
    /// which tensor.
    fn describe_fault(&self, _band: &Band, _fault: &NonFinite) -> Option<Error> {
        None
    }

    /// What is known of the numbers that it gives; `None` if these are the numbers of its inputs in another order.
    fn number_kind(&self) -> Option<NumberKind> {
        Some(NumberKind::Any)
    }

    /// Computes `band`: `facts` are those of [`Kernel::survey`], `inputs[i]` holds the bytes
    /// `input_bytes(i, band)`, or the strips of them, and every byte of every `outputs[k]` must be written; before, they
    /// have no particular value.
    fn compute(
        &self,
        facts: &[f64],
        band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite>;
}

/// How far what a kernel quantized is from its input.
pub trait ErrorMeasure: Debug + Send + Sync {
    /// Adds the figures of `rows` to `fidelity`.
    fn measure(&self, rows: MeasuredRows, fidelity: &mut Fidelity);
}

/// A band of what was quantized and of what it became.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredRows<'a> {
    pub source: &'a [u8],
    pub source_dtype: Dtype,
    /// The bytes of each output.
    pub outputs: &'a [&'a [u8]],
    /// Elements of `source` in a row.
    pub columns: usize,
}

/// How a kernel comes to know facts about its whole inputs: norms, counts, thresholds.
///
/// In each pass a tally, a vector of numbers, is taken of every band, and the tallies are joined, in an
/// order that depends on the number of bands alone: facts have the same bits for any number of
/// threads. What is kept of the sum becomes facts, which the passes after it
/// may use. Facts are kept for as long as the view lives, so they should be few.
pub trait Survey: Debug + Send + Sync {
    /// The number of passes over the inputs, some of which may want only a few bands.
    fn passes(&self) -> usize;

    /// The length of the tally of pass `pass`.
    fn tally_len(&self, pass: usize) -> usize;

    /// Whether pass `pass` takes a tally of `band`, given the facts of the passes before; else its
    /// inputs are not read.
    fn wants(&self, pass: usize, facts: &[f64], band: &Band) -> bool {
        let _ = (pass, facts, band);
        true
    }

    /// Adds `band` to `tally`, which is zero at first or holds other bands. `inputs` are as for
    /// [`Kernel::compute`].
    fn tally(&self, pass: usize, facts: &[f64], band: &Band, inputs: &[&[u8]], tally: &mut [f64]);

    /// Adds `other`, the tally of later bands, to `tally`: element by element, unless a survey has
    /// another way.
    fn join(&self, tally: &mut [f64], other: &[f64]) {
        for (total, part) in tally.iter_mut().zip(other) {
            *total += part;
        }
    }

    /// Adds what follows from the tally of all bands to `facts`.
    fn conclude(&self, pass: usize, tally: &[f64], facts: &mut Vec<f64>);

    /// Whether what is computed is defined, given all facts.
    ///
    /// # Errors
    /// With why it is not; the reader says of which tensor.
    fn check(&self, facts: &[f64]) -> Result<(), String> {
        let _ = facts;
        Ok(())
    }
}

impl dyn Kernel {
    /// The band that produces byte `offset` of output `output`.
    pub fn band_at(&self, output: usize, offset: u64) -> Band {
        let bands = self.bands();
        let (mut low, mut high) = (0, bands.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.output_bytes(output, &bands.band(middle)).end <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        bands.band(low)
    }
}

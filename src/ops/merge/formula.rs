//! The contract between a merge method and the kernel that all of them share.

use std::fmt::Debug;

use crate::catalog::Step;
use crate::kernels::lanes::{Precision, Round};

/// How a merged element follows from the elements at the same place of the inputs.
///
/// Values come in f32 lanes that hold values of the working format `R`; a formula rounds with
/// [`Round::round`] after each operation that is to happen in that format. What it gives is
/// rounded to `R`, and then to the format of the output.
///
/// Mark implementations `#[inline(always)]`: they are compiled for each format and [`crate::kernels::CpuPath`].
pub trait Formula: Debug + Send + Sync + 'static {
    /// Whether [`Formula::merge`] is given whole rows, one at a time, and not runs of any length.
    const WHOLE_ROWS: bool = false;

    /// The number of elements in a row of a tensor of this shape: those of the last dimension.
    fn columns(shape: &[u64]) -> u64 {
        shape.last().copied().unwrap_or(1).max(1)
    }

    /// What it does, by [`Step::merge`], for people and programs.
    fn step(&self) -> Step;

    /// Gives the merged elements of a run of which `inputs` are those of every input.
    fn merge<R: Round>(&self, facts: &[f64], at: At, inputs: Lanes<'_>, output: &mut [f32]);

    /// The number of passes over the whole inputs that it needs before ([`crate::catalog::Survey::passes`]).
    fn passes(&self, working: Precision) -> usize {
        let _ = working;
        0
    }

    /// As [`crate::catalog::Survey::tally_len`].
    fn tally_len(&self, working: Precision, pass: usize, extent: Size) -> usize {
        let _ = (working, pass, extent);
        0
    }

    /// As [`crate::catalog::Survey::wants`], of the band of number `band`.
    fn wants(&self, working: Precision, pass: usize, facts: &[f64], band: u64) -> bool {
        let _ = (working, pass, facts, band);
        true
    }

    /// Adds a run to `tally`, as [`crate::catalog::Survey::tally`].
    fn tally<R: Round>(
        &self,
        pass: usize,
        facts: &[f64],
        at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        let _ = (pass, facts, at, inputs, tally);
    }

    /// As [`crate::catalog::Survey::conclude`].
    fn conclude(
        &self,
        working: Precision,
        pass: usize,
        extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let _ = (working, pass, extent, tally, facts);
    }

    /// As [`crate::catalog::Survey::check`].
    fn check(&self, facts: &[f64]) -> Result<(), String> {
        let _ = facts;
        Ok(())
    }
}

/// The place of a run in its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The position of its first element among all elements.
    pub element: u64,
    /// The band it belongs to. Runs do not cross bands, and those of a band come in order.
    pub band: u64,
}

/// The most elements of a run, except for whole rows. Those of all inputs, and of a few
/// intermediate results, fit in the caches of a processor that are its own.
pub const RUN: usize = 1024;

/// How large a merged tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub elements: u64,
    /// Elements of a row ([`Formula::columns`]).
    pub columns: u64,
    pub bands: u64,
}

/// The values of a run, of each input.
#[derive(Debug, Clone, Copy)]
pub struct Lanes<'a> {
    pub(super) values: &'a [f32],
    /// Values from one input's to the next one's.
    pub(super) stride: usize,
    pub(super) len: usize,
}

impl<'a> Lanes<'a> {
    /// The values of input `i`.
    #[inline(always)]
    pub fn input(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.stride..][..self.len]
    }

    /// The number of elements.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements. Kernels give no such runs.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values of each input, in order.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = &'a [f32]> {
        let len = self.len;
        let runs = self.values.chunks_exact(self.stride);
        runs.map(move |run| &run[..len])
    }
}

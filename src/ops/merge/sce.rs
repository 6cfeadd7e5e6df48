//! SCE: of the differences from the base those that vary the most between the models, weighted by their
//! squares, where their sign is the majority's. <https://arxiv.org/abs/2408.07990>
//!
//! 1. Select: of the elements whose variance over the models is not 0, the share `select_topk` of the largest
//!    variances keep their differences; of equal ones those that come first.
//! 2. Calculate: the weight of a model is the mean of the squares of its differences, divided by the sum of these
//!    over the models; if that sum is below 1e-6, all weigh the same.
//! 3. Erase: differences count whose sign is that of their sum (plus where it is 0).
//!
//! The base plus `Σ wᵢ·δᵢ / max(Σ wᵢ, 1e-6)` of what counts, each operation in the working format.

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::{Precision, Round, total};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};
use crate::ops::merge::ranks::{Cut, Cuts, Rank};

/// Inputs: the base, then the models.
#[derive(Debug, Clone, PartialEq)]
pub struct Sce {
    models: usize,
    select_topk: f32,
    /// The end of the largest variances, unless all or none are selected.
    cuts: Cuts,
}

/// Weights whose sum is below this are all the same, and sums below this are not divided by.
const SMALLEST: f32 = 1e-6;

impl Sce {
    /// The merge of this many models.
    pub fn new(models: usize, select_topk: f32) -> Self {
        let cut = (select_topk > 0.0 && select_topk < 1.0).then_some(Cut {
            vector: 0,
            rank: Rank::OfNonZero(select_topk),
        });
        Sce {
            models,
            select_topk,
            cuts: Cuts(cut.into_iter().collect()),
        }
    }

    #[inline(always)]
    fn differences<R: Round>(&self, inputs: Lanes<'_>) -> Vec<f32> {
        let base = inputs.input(0);
        let mut deltas = Vec::with_capacity(self.models * base.len());
        for i in 1..=self.models {
            let pairs = inputs.input(i).iter().zip(base);
            deltas.extend(pairs.map(|(x, base)| R::round(x - base)));
        }
        deltas
    }

    /// The differences that are selected, zeros of the others.
    #[inline(always)]
    fn selected<R: Round>(&self, facts: &[f64], at: At, inputs: Lanes<'_>) -> Vec<f32> {
        let mut deltas = self.differences::<R>(inputs);
        if self.select_topk >= 1.0 {
            return deltas;
        }
        if self.cuts.0.is_empty() {
            deltas.fill(0.0);
            return deltas;
        }
        let variances = variances::<R>(&deltas, inputs.len());
        let cut = self.cuts.found(0, facts).in_run(at, inputs.len());
        for deltas in deltas.chunks_exact_mut(inputs.len()) {
            for ((delta, variance), place) in deltas.iter_mut().zip(&variances).zip(0..) {
                *delta *= f32::from(u8::from(cut.precedes::<R>(*variance, place)));
            }
        }
        deltas
    }
}

/// The variance of each element over the models, whose values are `len` apart; by Welford's method.
#[inline(always)]
fn variances<R: Round>(deltas: &[f32], len: usize) -> Vec<f32> {
    let mut means = vec![0.0f64; len];
    let mut squares = vec![0.0f64; len];
    let mut count = 0.0;
    for deltas in deltas.chunks_exact(len) {
        count += 1.0;
        for ((delta, mean), square) in deltas.iter().zip(&mut means).zip(&mut squares) {
            let off = f64::from(*delta) - *mean;
            *mean += off / count;
            *square += off * (f64::from(*delta) - *mean);
        }
    }
    squares
        .iter()
        .map(|square| R::round((square / count) as f32))
        .collect()
}

impl Formula for Sce {
    fn step(&self) -> Step {
        Step::merge("sce").with("select_topk", as_written(self.select_topk))
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let len = inputs.len();
        let deltas = self.selected::<R>(facts, at, inputs);
        let weights = &facts[self.cuts.facts()..];
        let mut signs = vec![0.0f32; len];
        for deltas in deltas.chunks_exact(len) {
            for (sum, delta) in signs.iter_mut().zip(deltas) {
                *sum += delta;
            }
        }
        for sign in &mut signs {
            *sign = if R::round(*sign) >= 0.0 { 1.0 } else { -1.0 };
        }
        let mut divisors = vec![0.0f32; len];
        output.fill(0.0);
        for (deltas, weight) in deltas.chunks_exact(len).zip(weights) {
            let weight = *weight as f32;
            let sums = output.iter_mut().zip(&mut divisors);
            for ((sum, divisor), (delta, sign)) in sums.zip(deltas.iter().zip(&signs)) {
                let share = weight * f32::from(u8::from(delta * sign > 0.0));
                *sum += R::round(delta * share);
                *divisor += share;
            }
        }
        let least = R::round(SMALLEST);
        let bases = inputs.input(0).iter().zip(&divisors);
        for (merged, (base, divisor)) in output.iter_mut().zip(bases) {
            let divisor = R::round(*divisor);
            let divisor = if divisor < least { least } else { divisor };
            *merged = base + R::round(R::round(*merged) / divisor);
        }
    }

    /// The cut, then the weights.
    fn passes(&self, working: Precision) -> usize {
        self.cuts.passes(working) + 1
    }

    fn tally_len(&self, working: Precision, pass: usize, extent: Size) -> usize {
        if pass < self.cuts.passes(working) {
            self.cuts.tally_len(pass, working, extent)
        } else {
            self.models
        }
    }

    fn wants(&self, working: Precision, pass: usize, facts: &[f64], band: u64) -> bool {
        pass == self.cuts.passes(working) || self.cuts.wants(pass, working, facts, band)
    }

    #[inline(always)]
    fn tally<R: Round>(
        &self,
        pass: usize,
        facts: &[f64],
        at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        let len = inputs.len();
        if pass < self.cuts.passes(R::PRECISION) {
            let deltas = self.differences::<R>(inputs);
            let variances = variances::<R>(&deltas, len);
            return self.cuts.tally::<R>(pass, facts, at, 0, &variances, tally);
        }
        let mut deltas = self.selected::<R>(facts, at, inputs);
        for (deltas, tally) in deltas.chunks_exact_mut(len).zip(tally) {
            deltas.iter_mut().for_each(|x| *x = R::round(*x * *x));
            *tally += total(deltas);
        }
    }

    fn conclude(
        &self,
        working: Precision,
        pass: usize,
        extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        if pass < self.cuts.passes(working) {
            return self.cuts.conclude(pass, working, extent, tally, facts);
        }
        let mean = |sum: &f64| working.round((sum / extent.elements as f64) as f32);
        let means: Vec<f32> = tally.iter().map(mean).collect();
        let sum = working.round(means.iter().sum());
        let weights = means.iter().map(|mean| {
            let weight = if sum.abs() < SMALLEST {
                1.0 / self.models as f32
            } else {
                mean / sum
            };
            f64::from(working.round(weight))
        });
        facts.extend(weights);
    }
}

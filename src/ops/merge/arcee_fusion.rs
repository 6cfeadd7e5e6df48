//! Arcee Fusion: the elements of the model that matter the most, and the base elsewhere.
//!
//! The importance of an element is `|δ|` times how far the softmax of its row is from the base's:
//! `Σ p·ln(p/q)` over the row, with `p` and `q` the softmax of the model's and the base's row, plus 1e-8. The
//! model's elements are taken from the importance `median + 1.5·(upper quartile − lower quartile)` on, where a
//! quantile is the element at rank `⌊q·(n − 1)⌋`. Divergences are computed in f64; differences and importance are
//! values of the working format.

use crate::catalog::Step;
use crate::kernels::lanes::{Precision, Round};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};
use crate::ops::merge::quantiles::Quantiles;

/// Inputs: the base, the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArceeFusion;

const QUARTILES: Quantiles<3> = Quantiles;

/// What is added to each probability.
const EPSILON: f64 = 1e-8;

/// Differences and importance of a row, from the divergence of it.
#[inline(always)]
fn importance<R: Round>(divergence: f64, inputs: Lanes<'_>, importance: &mut [f32]) {
    let divergence = R::round(divergence as f32);
    let pairs = inputs.input(1).iter().zip(inputs.input(0));
    for (importance, (x, base)) in importance.iter_mut().zip(pairs) {
        *importance = R::round(R::round(x - base).abs() * divergence);
    }
}

/// `Σ p·ln(p/q)` of two rows.
fn divergence(model: &[f32], base: &[f32]) -> f64 {
    let softmax = |row: &[f32]| -> Vec<f64> {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = row.iter().map(|x| (f64::from(*x) - f64::from(most)).exp());
        let mut powers: Vec<f64> = powers.collect();
        let sum: f64 = powers.iter().sum();
        powers
            .iter_mut()
            .for_each(|power| *power = *power / sum + EPSILON);
        powers
    };
    let (p, q) = (softmax(model), softmax(base));
    p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum()
}

impl Formula for ArceeFusion {
    const WHOLE_ROWS: bool = true;

    fn step(&self) -> Step {
        Step::merge("arcee fusion")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let row = at.element as usize / inputs.len();
        importance::<R>(facts[row], inputs, output);
        let threshold = facts[facts.len() - 1] as f32;
        let pairs = inputs.input(1).iter().zip(inputs.input(0));
        for (merged, (x, base)) in output.iter_mut().zip(pairs) {
            let taken = f32::from(u8::from(*merged >= threshold));
            *merged = base + R::round(x - base) * taken;
        }
    }

    /// The divergence of each row, then the quartiles.
    fn passes(&self, _working: Precision) -> usize {
        1 + Quantiles::<3>::PASSES
    }

    fn tally_len(&self, _working: Precision, pass: usize, extent: Size) -> usize {
        match pass.checked_sub(1) {
            None => (extent.elements / extent.columns) as usize,
            Some(pass) => QUARTILES.tally_len(pass),
        }
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
        let row = at.element as usize / inputs.len();
        let Some(pass) = pass.checked_sub(1) else {
            tally[row] += divergence(inputs.input(1), inputs.input(0));
            return;
        };
        let mut values = vec![0.0; inputs.len()];
        importance::<R>(facts[row], inputs, &mut values);
        let of_quartiles = facts.len() - [0, 6][pass];
        QUARTILES.tally(pass, &facts[of_quartiles..], &values, tally);
    }

    /// The facts are the divergences of the rows and what the search for the quartiles needs; the last is the
    /// threshold.
    fn conclude(
        &self,
        working: Precision,
        pass: usize,
        extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let Some(pass) = pass.checked_sub(1) else {
            facts.extend_from_slice(tally);
            return;
        };
        let last = extent.elements.saturating_sub(1);
        let ranks = [1, 2, 3].map(|quarters| last * quarters / 4);
        let rows = (extent.elements / extent.columns) as usize;
        let found = QUARTILES.conclude(pass, &facts[rows..], ranks, tally);
        if pass == 0 {
            return facts.extend(found);
        }
        let [lower, median, upper] = [found[0], found[1], found[2]].map(|x| x as f32);
        let round = |x| working.round(x);
        let threshold = round(median + round(1.5 * round(upper - lower)));
        facts.truncate(rows);
        facts.push(f64::from(threshold));
    }
}

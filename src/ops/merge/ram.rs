//! RAM and RAM+: differences from the base that one model alone has are taken as they are, those that
//! several have as their mean. <https://arxiv.org/abs/2601.13572>
//!
//! A model *has* a difference if `|δ| > ε`. The base plus `Σ δᵢ·hasᵢ / count`, each operation in the working
//! format, in the order of the models. RAM+ multiplies the differences that model `i` alone has by
//! `1 + r·clamp(sharedᵢ / max(uniqueᵢ, ε), 0, α)`, with the numbers of elements that it has with others and alone;
//! products, sums and the base are then added up in f32.

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::{Precision, Round};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};

/// Inputs: the base, then the models.
#[derive(Debug, Clone, PartialEq)]
pub struct Ram {
    pub models: usize,
    pub epsilon: f32,
    pub rescale: Option<RamRescale>,
}

/// How RAM+ multiplies what a model alone has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RamRescale {
    pub r: f32,
    pub alpha: f32,
}

impl Ram {
    /// The differences of each model, zeros where it has none, and how many models have one.
    #[inline(always)]
    fn differences<R: Round>(&self, inputs: Lanes<'_>) -> (Vec<f32>, Vec<f32>) {
        let base = inputs.input(0);
        let epsilon = R::round(self.epsilon);
        let mut counts = vec![0.0; base.len()];
        let mut deltas = vec![0.0; base.len() * self.models];
        for (i, deltas) in deltas.chunks_exact_mut(base.len()).enumerate() {
            let values = inputs.input(i + 1).iter().zip(base).zip(&mut counts);
            for (delta, ((x, base), count)) in deltas.iter_mut().zip(values) {
                let change = R::round(x - base);
                let has = f32::from(u8::from(change.abs() > epsilon));
                *delta = change * has;
                *count += has;
            }
        }
        (deltas, counts)
    }
}

impl Formula for Ram {
    fn step(&self) -> Step {
        let step = Step::merge("ram").with("epsilon", as_written(self.epsilon));
        match self.rescale {
            None => step,
            Some(RamRescale { r, alpha }) => step
                .with("r", as_written(r))
                .with("alpha", as_written(alpha)),
        }
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let (deltas, counts) = self.differences::<R>(inputs);
        output.fill(0.0);
        for (i, deltas) in deltas.chunks_exact(counts.len()).enumerate() {
            let alone = facts.get(i).map_or(1.0, |factor| *factor as f32);
            for ((sum, delta), count) in output.iter_mut().zip(deltas).zip(&counts) {
                let mean = R::round(delta / count.max(1.0));
                *sum += if *count == 1.0 { delta * alone } else { mean };
            }
        }
        for (merged, base) in output.iter_mut().zip(inputs.input(0)) {
            let change = match self.rescale {
                None => R::round(*merged),
                Some(_) => *merged,
            };
            *merged = base + change;
        }
    }

    fn passes(&self, _working: Precision) -> usize {
        usize::from(self.rescale.is_some())
    }

    /// For each model: how many elements it has with others, and how many alone.
    fn tally_len(&self, _working: Precision, _pass: usize, _extent: Size) -> usize {
        2 * self.models
    }

    #[inline(always)]
    fn tally<R: Round>(
        &self,
        _pass: usize,
        _facts: &[f64],
        _at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        let (deltas, counts) = self.differences::<R>(inputs);
        let models = deltas.chunks_exact(counts.len());
        for (deltas, tally) in models.zip(tally.chunks_exact_mut(2)) {
            let (mut shared, mut unique) = (0u32, 0u32);
            for (delta, count) in deltas.iter().zip(&counts) {
                let has = *delta != 0.0;
                shared += u32::from(has & (*count > 1.0));
                unique += u32::from(has & (*count == 1.0));
            }
            tally[0] += f64::from(shared);
            tally[1] += f64::from(unique);
        }
    }

    /// The facts are what to multiply the differences by that a model alone has.
    fn conclude(
        &self,
        _working: Precision,
        _pass: usize,
        _extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let Some(RamRescale { r, alpha }) = self.rescale else {
            return;
        };
        for counts in tally.chunks_exact(2) {
            let [shared, unique] = [counts[0], counts[1]].map(|count| count as f32);
            let share = (shared / unique.max(self.epsilon)).max(0.0).min(alpha);
            facts.push(f64::from(1.0 + r * share));
        }
    }
}

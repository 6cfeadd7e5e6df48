//! Model Stock: from the base toward the mean of the models, as far as the angle between them
//! says. <https://arxiv.org/abs/2403.19522>
//!
//! With `δᵢ = wᵢ − base` and `c` the mean of `cos(δᵢ, δⱼ)` over all pairs of `n` models:
//! `t = n·c / (1 + (n − 1)·c)` (0 where that is not defined), merged `t·mean(w) + (1 − t)·base`, each
//! operation in the working format. The angle is that of whole tensors or, filter-wise, of each row.

use crate::catalog::Step;
use crate::kernels::lanes::{Precision, Round, dot, total};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};

/// The angle between whole tensors. Inputs: the base, then the models.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelStock {
    pub models: usize,
}

/// The angle between each of the rows. Inputs: the base, then the models.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelStockByRow {
    pub models: usize,
}

impl Formula for ModelStock {
    fn step(&self) -> Step {
        Step::merge("model stock").with("angle_of", "tensors")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        interpolate::<R>(self.models, R::round(facts[0] as f32), inputs, output);
    }

    fn passes(&self, _working: Precision) -> usize {
        1
    }

    fn tally_len(&self, _working: Precision, _pass: usize, _extent: Size) -> usize {
        sums(self.models)
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
        add_products::<R>(self.models, inputs, tally);
    }

    /// The fact is `t`.
    fn conclude(
        &self,
        working: Precision,
        _pass: usize,
        _extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let t = share(self.models, tally, |x| working.round(x));
        facts.push(f64::from(t));
    }
}

impl Formula for ModelStockByRow {
    const WHOLE_ROWS: bool = true;

    fn step(&self) -> Step {
        Step::merge("model stock").with("angle_of", "rows")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, _facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let mut tally = vec![0.0; sums(self.models)];
        add_products::<R>(self.models, inputs, &mut tally);
        interpolate::<R>(
            self.models,
            share(self.models, &tally, R::round),
            inputs,
            output,
        );
    }
}

/// The squared length of each delta, and the product of each pair.
fn sums(models: usize) -> usize {
    models + models * (models - 1) / 2
}

#[inline(always)]
fn add_products<R: Round>(models: usize, inputs: Lanes<'_>, tally: &mut [f64]) {
    let base = inputs.input(0);
    let mut deltas = Vec::with_capacity(models * base.len());
    for i in 1..=models {
        let pairs = inputs.input(i).iter().zip(base);
        deltas.extend(pairs.map(|(x, base)| R::round(x - base)));
    }
    let delta = |i: usize| &deltas[i * base.len()..(i + 1) * base.len()];
    let mut products = vec![0.0; base.len()];
    let (squares, pairs) = tally.split_at_mut(models);
    let mut pairs = pairs.iter_mut();
    for (i, square) in squares.iter_mut().enumerate() {
        *square += dot(delta(i), delta(i));
        for j in i + 1..models {
            for ((product, a), b) in products.iter_mut().zip(delta(i)).zip(delta(j)) {
                *product = R::round(a * b);
            }
            *pairs.next().expect("a sum for each pair") += total(&products);
        }
    }
}

/// `t`, from the sums over whole vectors, with `round` after each operation.
#[inline(always)]
fn share(models: usize, sums: &[f64], round: impl Fn(f32) -> f32) -> f32 {
    let (squares, pairs) = sums.split_at(models);
    let length = |square: f64| round(square.sqrt() as f32);
    let mut cosines = 0.0;
    let mut pair_sums = pairs.iter();
    for (i, a) in squares.iter().enumerate() {
        for (b, sum) in squares[i + 1..models].iter().zip(&mut pair_sums) {
            let lengths = round(length(*a) * length(*b)).max(round(1e-6));
            cosines += round(round(*sum as f32) / lengths).clamp(-1.0, 1.0);
        }
    }
    let cosine = round(cosines / pairs.len() as f32);
    let denominator = round(1.0 + round((models - 1) as f32 * cosine));
    if denominator.abs() < 1e-6 {
        return 0.0;
    }
    round(round(models as f32 * cosine) / denominator)
}

#[inline(always)]
fn interpolate<R: Round>(models: usize, t: f32, inputs: Lanes<'_>, output: &mut [f32]) {
    let rest = R::round(1.0 - t);
    output.copy_from_slice(inputs.input(1));
    for i in 2..=models {
        for (sum, x) in output.iter_mut().zip(inputs.input(i)) {
            *sum = R::round(*sum + x);
        }
    }
    for (merged, base) in output.iter_mut().zip(inputs.input(0)) {
        let mean = R::round(*merged / models as f32);
        *merged = R::round(t * mean) + R::round(rest * base);
    }
}

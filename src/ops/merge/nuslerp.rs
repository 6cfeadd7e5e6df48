//! NuSLERP: spherical interpolation of two tensors, or of their differences from a base.
//!
//! As [`Slerp`](super::Slerp), but with each operation in the working format, weights instead of a
//! position (`t = w₂ / (w₁ + w₂)`), and a choice of what counts as a vector: the whole tensor, each
//! row, or each column. The straight line takes over where `1 − cos²θ` vanishes.

use crate::catalog::Step;
use crate::kernels::lanes::{Precision, Round, dot, total};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};

/// What all three have in common. Inputs: the base if there is one, then the two models.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Between {
    /// 0 is the first model, 1 the second.
    pub t: f64,
    pub base: bool,
}

/// The whole tensor is one vector.
#[derive(Debug, Clone, PartialEq)]
pub struct NuSlerp(pub Between);

/// Each row (along the last dimension) is a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct NuSlerpByRow(pub Between);

/// Each column (along the first dimension) is a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct NuSlerpByColumn(pub Between);

/// A vector shorter than this counts as this long.
const SHORTEST: f32 = 1e-7;

impl Between {
    /// `vectors` are what counts as vectors.
    fn step(self, vectors: &str) -> Step {
        Step::merge("nuslerp")
            .with("t", self.t)
            .with("vectors", vectors)
            .with("differences_from_base", self.base)
    }

    /// The two vectors of a run, one after the other.
    #[inline(always)]
    fn vectors<R: Round>(self, inputs: Lanes<'_>) -> [Vec<f32>; 2] {
        let first = usize::from(self.base);
        [first, first + 1].map(|i| {
            let mut vector = inputs.input(i).to_vec();
            if self.base {
                for (x, base) in vector.iter_mut().zip(inputs.input(0)) {
                    *x = R::round(*x - base);
                }
            }
            vector
        })
    }

    /// Adds the base to what was merged, if there is one.
    #[inline(always)]
    fn add_base(self, inputs: Lanes<'_>, output: &mut [f32]) {
        if self.base {
            for (merged, base) in output.iter_mut().zip(inputs.input(0)) {
                *merged += base;
            }
        }
    }

    /// How to merge vectors, from the cosine of their angle.
    fn path(self, cosine: f32, round: impl Fn(f32) -> f32) -> Path {
        let cosine = cosine.clamp(-1.0, 1.0);
        if f64::from(round(1.0 - round(cosine * cosine))) <= 1e-16 {
            return Path {
                of: [(1.0 - self.t) as f32, self.t as f32],
                over: 1.0,
            };
        }
        let angle = round(cosine.acos());
        let part = |share: f64| round(round(angle * share as f32).sin());
        Path {
            of: [part(1.0 - self.t), part(self.t)],
            over: round(angle.sin()),
        }
    }
}

/// Merged is `(of₀·a + of₁·b) / over`.
#[derive(Debug, Clone, Copy)]
struct Path {
    of: [f32; 2],
    over: f32,
}

impl Path {
    const FACTS: usize = 3;

    fn facts(self) -> [f64; Self::FACTS] {
        [self.of[0], self.of[1], self.over].map(f64::from)
    }

    #[inline(always)]
    fn from_facts(facts: &[f64]) -> Self {
        Path {
            of: [facts[0] as f32, facts[1] as f32],
            over: facts[2] as f32,
        }
    }

    #[inline(always)]
    fn merge<R: Round>(self, a: f32, b: f32) -> f32 {
        let sum = R::round(R::round(self.of[0] * a) + R::round(self.of[1] * b));
        R::round(sum / self.over)
    }
}

/// The length of a vector, from the sum of its squares.
#[inline(always)]
fn length(squares: f64, round: impl Fn(f32) -> f32) -> f32 {
    round(squares.sqrt() as f32).max(round(SHORTEST))
}

/// The products of the elements of two vectors scaled to length 1.
#[inline(always)]
fn unit_product<R: Round>(a: f32, b: f32, lengths: [f32; 2]) -> f32 {
    R::round(R::round(a / lengths[0]) * R::round(b / lengths[1]))
}

impl Formula for NuSlerp {
    fn step(&self) -> Step {
        self.0.step("tensors")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let [a, b] = self.0.vectors::<R>(inputs);
        let path = Path::from_facts(&facts[2..]);
        for ((merged, a), b) in output.iter_mut().zip(&a).zip(&b) {
            *merged = path.merge::<R>(*a, *b);
        }
        self.0.add_base(inputs, output);
    }

    /// Lengths, then the cosine.
    fn passes(&self, _working: Precision) -> usize {
        2
    }

    fn tally_len(&self, _working: Precision, pass: usize, _extent: Size) -> usize {
        [2, 1][pass]
    }

    #[inline(always)]
    fn tally<R: Round>(
        &self,
        pass: usize,
        facts: &[f64],
        _at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        let [mut a, b] = self.0.vectors::<R>(inputs);
        if pass == 0 {
            tally[0] += dot(&a, &a);
            tally[1] += dot(&b, &b);
        } else {
            let lengths = [facts[0] as f32, facts[1] as f32];
            for (a, b) in a.iter_mut().zip(&b) {
                *a = unit_product::<R>(*a, *b, lengths);
            }
            tally[0] += total(&a);
        }
    }

    fn conclude(
        &self,
        working: Precision,
        pass: usize,
        _extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let round = |x| working.round(x);
        if pass == 0 {
            facts.extend(tally.iter().map(|sum| f64::from(length(*sum, round))));
        } else {
            facts.extend(self.0.path(round(tally[0] as f32), round).facts());
        }
    }
}

impl Formula for NuSlerpByRow {
    const WHOLE_ROWS: bool = true;

    fn step(&self) -> Step {
        self.0.step("rows")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, _facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let [a, b] = self.0.vectors::<R>(inputs);
        let lengths = [dot(&a, &a), dot(&b, &b)].map(|squares| length(squares, R::round));
        for ((product, a), b) in output.iter_mut().zip(&a).zip(&b) {
            *product = unit_product::<R>(*a, *b, lengths);
        }
        let cosine = R::round(total(output) as f32);
        let path = self.0.path(cosine, R::round);
        for ((merged, a), b) in output.iter_mut().zip(&a).zip(&b) {
            *merged = path.merge::<R>(*a, *b);
        }
        self.0.add_base(inputs, output);
    }
}

impl Formula for NuSlerpByColumn {
    const WHOLE_ROWS: bool = true;

    /// All dimensions after the first, so that a column runs along the first.
    fn columns(shape: &[u64]) -> u64 {
        shape.iter().skip(1).product::<u64>().max(1)
    }

    fn step(&self) -> Step {
        self.0.step("columns")
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let [a, b] = self.0.vectors::<R>(inputs);
        let (paths, _) = facts[2 * a.len()..].as_chunks::<{ Path::FACTS }>();
        for (((merged, a), b), path) in output.iter_mut().zip(&a).zip(&b).zip(paths) {
            *merged = Path::from_facts(path).merge::<R>(*a, *b);
        }
        self.0.add_base(inputs, output);
    }

    /// Lengths, then cosines.
    fn passes(&self, _working: Precision) -> usize {
        2
    }

    fn tally_len(&self, _working: Precision, pass: usize, extent: Size) -> usize {
        [2, 1][pass] * extent.columns as usize
    }

    #[inline(always)]
    fn tally<R: Round>(
        &self,
        pass: usize,
        facts: &[f64],
        _at: At,
        inputs: Lanes<'_>,
        tally: &mut [f64],
    ) {
        let [a, b] = self.0.vectors::<R>(inputs);
        if pass == 0 {
            for (sum, x) in tally.iter_mut().zip(a.iter().chain(&b)) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        } else {
            let (of_a, of_b) = facts.split_at(a.len());
            let lengths = of_a.iter().zip(of_b);
            for (((sum, a), b), (of_a, of_b)) in tally.iter_mut().zip(&a).zip(&b).zip(lengths) {
                let product = unit_product::<R>(*a, *b, [*of_a as f32, *of_b as f32]);
                *sum += f64::from(product);
            }
        }
    }

    fn conclude(
        &self,
        working: Precision,
        pass: usize,
        _extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let round = |x| working.round(x);
        for sum in tally {
            if pass == 0 {
                facts.push(f64::from(length(*sum, round)));
            } else {
                facts.extend(self.0.path(round(*sum as f32), round).facts());
            }
        }
    }
}

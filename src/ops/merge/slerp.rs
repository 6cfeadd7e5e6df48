//! SLERP: spherical interpolation between two tensors, each seen as one long vector.
//!
//! With `θ` the angle between them: `sin((1 − t)θ)/sin θ · a + sin(tθ)/sin θ · b`; where they are
//! (nearly) in line, `|cos θ| > 0.9995`, `(1 − t)·a + t·b`. Computed in f32 from norms and the dot
//! product of the whole tensors, and rounded to the working format once.
//! <https://en.wikipedia.org/wiki/Slerp>

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::{Precision, Round, dot};
use crate::ops::merge::formula::{At, Formula, Lanes, Size};

/// Inputs: the base, the other model.
#[derive(Debug, Clone, PartialEq)]
pub struct Slerp {
    /// 0 is the base, 1 the other model.
    pub t: f32,
}

/// From this cosine on, vectors count as in line.
const IN_LINE: f64 = 0.9995;

/// A vector shorter than this is not scaled to length 1.
const SHORTEST: f64 = 1e-8;

impl Formula for Slerp {
    fn step(&self) -> Step {
        Step::merge("slerp").with("t", as_written(self.t))
    }

    #[inline(always)]
    fn merge<R: Round>(&self, facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let (of_a, of_b) = (facts[0] as f32, facts[1] as f32);
        let pairs = inputs.input(0).iter().zip(inputs.input(1));
        for (merged, (a, b)) in output.iter_mut().zip(pairs) {
            *merged = of_a * a + of_b * b;
        }
    }

    fn passes(&self, _working: Precision) -> usize {
        1
    }

    fn tally_len(&self, _working: Precision, _pass: usize, _extent: Size) -> usize {
        3
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
        let (a, b) = (inputs.input(0), inputs.input(1));
        tally[0] += dot(a, a);
        tally[1] += dot(b, b);
        tally[2] += dot(a, b);
    }

    /// The facts are the coefficients of the two inputs.
    fn conclude(
        &self,
        _working: Precision,
        _pass: usize,
        _extent: Size,
        tally: &[f64],
        facts: &mut Vec<f64>,
    ) {
        let length = |square: f64| Some(square.sqrt()).filter(|x| *x > SHORTEST).unwrap_or(1.0);
        let cosine = (tally[2] / (length(tally[0]) * length(tally[1]))).clamp(-1.0, 1.0);
        let t = f64::from(self.t);
        if cosine.abs() > IN_LINE {
            facts.extend([f64::from(1.0 - self.t), t]);
        } else {
            let angle = cosine.acos();
            facts.extend([(1.0 - t) * angle, t * angle].map(|part| part.sin() / angle.sin()));
        }
    }
}

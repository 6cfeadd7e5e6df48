//! NearSwap: the base, moved to the other model where the two are near each other.
//!
//! `w = clamp(t / max(|a − b|, 1e-6), 0, 1)`, merged `w·b + (1 − w)·a`, with `a` the base, each
//! operation in the working format; the quotient is the reciprocal times `t`.
//! <https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001>

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::Round;
use crate::ops::merge::formula::{At, Formula, Lanes};

/// Inputs: the base, the other model.
#[derive(Debug, Clone, PartialEq)]
pub struct NearSwap {
    pub t: f32,
}

impl Formula for NearSwap {
    fn step(&self) -> Step {
        Step::merge("nearswap").with("t", as_written(self.t))
    }

    #[inline(always)]
    fn merge<R: Round>(&self, _facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let least = R::round(1e-6);
        let pairs = inputs.input(0).iter().zip(inputs.input(1));
        for (merged, (a, b)) in output.iter_mut().zip(pairs) {
            let distance = R::round(a - b).abs();
            // Not `f32::max`, which would make a number of a NaN.
            let distance = if distance < least { least } else { distance };
            let weight = R::round(R::round(1.0 / distance) * self.t).clamp(0.0, 1.0);
            *merged = R::round(weight * b) + R::round(R::round(1.0 - weight) * a);
        }
    }
}

//! Linear: the weighted sum of the inputs, or their weighted mean.
//!
//! Model soups, <https://arxiv.org/abs/2203.05482>. `Σ wᵢ·xᵢ`, divided by `Σ wᵢ` where it is
//! normalized; summed in f32 in the order of the inputs, whatever their format, each product
//! added without a rounding of its own, and rounded to the format once.

use serde_json::Value;

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::Round;
use crate::ops::merge::formula::{At, Formula, Lanes};

/// One weight for each input.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    pub weights: Vec<f32>,
    pub normalize: bool,
}

impl Formula for Linear {
    fn step(&self) -> Step {
        let weights: Vec<Value> = self.weights.iter().map(|w| as_written(*w)).collect();
        Step::merge("linear")
            .with("weights", weights)
            .with("normalize", self.normalize)
    }

    #[inline(always)]
    fn merge<R: Round>(&self, _facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        output.fill(0.0);
        for (weight, input) in self.weights.iter().zip(inputs.iter()) {
            for (sum, x) in output.iter_mut().zip(input) {
                *sum = weight.mul_add(*x, *sum);
            }
        }
        if self.normalize {
            let total: f32 = self.weights.iter().sum();
            output.iter_mut().for_each(|sum| *sum /= total);
        }
    }
}

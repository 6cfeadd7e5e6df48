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

impl Linear {
    /// The weighted sums of `N` elements from position `from` of a run.
    #[inline(always)]
    fn sums<const N: usize>(&self, inputs: Lanes<'_>, from: usize) -> [f32; N] {
        let mut sums = [0.0; N];
        for (weight, input) in self.weights.iter().zip(inputs.iter()) {
            for (sum, x) in sums.iter_mut().zip(&input[from..from + N]) {
                *sum = weight.mul_add(*x, *sum);
            }
        }
        sums
    }
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
        /// Sums that are held in registers.
        const WIDTH: usize = 64;
        let total: f32 = if self.normalize {
            self.weights.iter().sum()
        } else {
            1.0
        };
        let (whole, rest) = output.as_chunks_mut::<WIDTH>();
        let ends_at = whole.len() * WIDTH;
        // The product with the reciprocal of a power of two is the quotient, rounded as that is.
        let share = 1.0 / total;
        let is_exact = |x: f32| x.is_normal() && x.to_bits() << 9 == 0;
        if is_exact(total) && is_exact(share) {
            for (i, sums) in whole.iter_mut().enumerate() {
                *sums = self.sums(inputs, i * WIDTH).map(|sum| sum * share);
            }
        } else {
            for (i, sums) in whole.iter_mut().enumerate() {
                *sums = self.sums(inputs, i * WIDTH).map(|sum| sum / total);
            }
        }
        for (i, merged) in rest.iter_mut().enumerate() {
            let [sum] = self.sums(inputs, ends_at + i);
            *merged = sum / total;
        }
    }
}

//! Scale: one input times a factor, or as it is in another dtype.

use crate::catalog::{Step, as_written};
use crate::kernels::lanes::Round;
use crate::ops::merge::formula::{At, Formula, Lanes};

/// `factor·x`, rounded to the working format.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// `None` leaves the values to the formats alone.
    pub factor: Option<f32>,
}

impl Formula for Scale {
    fn step(&self) -> Step {
        match self.factor {
            Some(factor) => Step::merge("scale").with("factor", as_written(factor)),
            None => Step::merge("passthrough"),
        }
    }

    #[inline(always)]
    fn merge<R: Round>(&self, _facts: &[f64], _at: At, inputs: Lanes<'_>, output: &mut [f32]) {
        let input = inputs.input(0);
        match self.factor {
            None => output.copy_from_slice(input),
            Some(factor) => {
                for (scaled, x) in output.iter_mut().zip(input) {
                    *scaled = R::round(factor * x);
                }
            }
        }
    }
}

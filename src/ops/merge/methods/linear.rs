//! `linear`: the weighted sum of the inputs, by default divided by the sum of the weights.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::merge::linear::Linear as Formula;
use crate::ops::merge::method::{
    BasePolicy, Bounds, Group, Method, Missing, Spec, required, shared,
};
use crate::ops::merge::parameters::{Preset, Scope};

#[derive(Debug)]
pub(super) struct Linear;

static SPEC: Spec = Spec {
    name: "linear",
    parameters: &[
        required("weight", Scope::Input),
        shared("normalize", Preset::Bool(true)),
    ],
    base: BasePolicy::Ignored,
    inputs: Bounds(1, usize::MAX),
    non_base: Bounds::ANY,
    missing: Missing::Merge,
};

impl Method for Linear {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn check(&self, group: &Group) -> std::result::Result<(), String> {
        let weights = group
            .inputs
            .iter()
            .map(|i| i.parameters.float("weight") as f32);
        let sum: f32 = weights.sum();
        if group.parameters.bool("normalize") && !(sum != 0.0 && sum.is_finite()) {
            Err(format!(
                "the weights of its models add up to {sum}, by which normalize divides; choose other weights, or normalize: false"
            ))
        } else {
            Ok(())
        }
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let weights = group.inputs.iter();
        let formula = Formula {
            weights: weights
                .map(|i| i.parameters.float("weight") as f32)
                .collect(),
            normalize: group.parameters.bool("normalize"),
        };
        group.computed(formula, group.tensors())
    }
}

//! `passthrough`: the one input, as it is or times a scale. Without scale and change of dtype the
//! tensor stays a range of its source file.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::merge::cast;
use crate::ops::merge::method::{BasePolicy, Bounds, Group, Method, Missing, Spec, optional};
use crate::ops::merge::parameters::{Preset, Scope};
use crate::ops::merge::scale::Scale;

#[derive(Debug)]
pub(super) struct Passthrough;

static SPEC: Spec = Spec {
    name: "passthrough",
    parameters: &[optional("scale", Scope::Input, Preset::Absent)],
    base: BasePolicy::Ignored,
    inputs: Bounds(1, 1),
    non_base: Bounds::ANY,
    missing: Missing::Merge,
};

impl Method for Passthrough {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let input = &group.inputs[0];
        match input.parameters.optional_float("scale") {
            None => cast::through(group, &input.tensor),
            Some(factor) => {
                let factor = Some(factor as f32);
                group.computed(Scale { factor }, vec![input.tensor.clone()])
            }
        }
    }
}

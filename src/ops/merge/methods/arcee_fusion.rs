//! `arcee_fusion`: the base, and of one model the elements that matter the most.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::merge::arcee_fusion::ArceeFusion;
use crate::ops::merge::method::{BasePolicy, Bounds, Group, Method, Missing, Spec};

#[derive(Debug)]
pub(super) struct Fusion;

static SPEC: Spec = Spec {
    name: "arcee_fusion",
    parameters: &[],
    base: BasePolicy::Required,
    inputs: Bounds(2, 2),
    non_base: Bounds::ANY,
    missing: Missing::PassSingle,
};

impl Method for Fusion {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        group.computed(ArceeFusion, group.base_first())
    }
}

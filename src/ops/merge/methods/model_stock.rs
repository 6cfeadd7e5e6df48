//! `model_stock`: the base and at least two models, weighted by the angle between them.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::merge::method::{BasePolicy, Bounds, Group, Method, Missing, Spec, shared};
use crate::ops::merge::model_stock::{ModelStock, ModelStockByRow};
use crate::ops::merge::parameters::Preset;

#[derive(Debug)]
pub(super) struct Stock;

static SPEC: Spec = Spec {
    name: "model_stock",
    parameters: &[shared("filter_wise", Preset::Bool(false))],
    base: BasePolicy::Required,
    inputs: Bounds(3, usize::MAX),
    non_base: Bounds::ANY,
    missing: Missing::BaseOrSkip,
};

impl Method for Stock {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let models = group.non_base().count();
        if group.parameters.bool("filter_wise") {
            group.computed(ModelStockByRow { models }, group.base_first())
        } else {
            group.computed(ModelStock { models }, group.base_first())
        }
    }
}

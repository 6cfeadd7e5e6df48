//! `slerp`, `nearswap` and `nuslerp`: two models, one of them or a third the base.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::merge::method::{
    BasePolicy, Bounds, Group, Method, Missing, Spec, required, shared, within,
};
use crate::ops::merge::nearswap::NearSwap;
use crate::ops::merge::nuslerp::{Between, NuSlerp, NuSlerpByColumn, NuSlerpByRow};
use crate::ops::merge::parameters::{Parameter, Preset, Range, Scope};
use crate::ops::merge::slerp::Slerp as SlerpFormula;

#[derive(Debug)]
pub(super) struct Slerp;

/// A base and another model, and a position between them.
const fn between_two(
    name: &'static str,
    parameters: &'static [Parameter],
    missing: Missing,
) -> Spec {
    Spec {
        name,
        parameters,
        base: BasePolicy::Required,
        inputs: Bounds(2, 2),
        non_base: Bounds::ANY,
        missing,
    }
}

static SLERP: Spec = between_two("slerp", POSITION, Missing::PassSingle);

/// Beyond 0 and 1 it leads further on than the two models.
const POSITION: &[Parameter] = &[required("t", Scope::Shared)];

impl Method for Slerp {
    fn spec(&self) -> &'static Spec {
        &SLERP
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let t = group.parameters.float("t") as f32;
        group.computed(SlerpFormula { t }, group.base_first())
    }
}

#[derive(Debug)]
pub(super) struct Near;

static NEARSWAP: Spec = between_two("nearswap", DISTANCE, Missing::PassBase);

const DISTANCE: &[Parameter] = &[within(Range::NOT_NEGATIVE, required("t", Scope::Shared))];

impl Method for Near {
    fn spec(&self) -> &'static Spec {
        &NEARSWAP
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let t = group.parameters.float("t") as f32;
        group.computed(NearSwap { t }, group.base_first())
    }
}

#[derive(Debug)]
pub(super) struct Nu;

static NUSLERP: Spec = Spec {
    name: "nuslerp",
    parameters: &[
        required("weight", Scope::NonBase),
        shared("nuslerp_row_wise", Preset::Bool(false)),
        shared("nuslerp_flatten", Preset::Bool(true)),
    ],
    base: BasePolicy::Optional,
    inputs: Bounds::ANY,
    non_base: Bounds(2, 2),
    missing: Missing::PassSingle,
};

impl Method for Nu {
    fn spec(&self) -> &'static Spec {
        &NUSLERP
    }

    fn check(&self, group: &Group) -> std::result::Result<(), String> {
        let t = position(group);
        // Angles, of up to half a circle, are multiplied by it.
        let shares =
            [t, 1.0 - t].map(|share| group.rounded("weight by the sum of both", 4.0 * share));
        shares.into_iter().try_for_each(|share| share.map(drop))
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let between = Between {
            t: position(group),
            base: group.base().is_some(),
        };
        let tensors = group.base_first();
        let dimensions = tensors[0].shape.len();
        let (flat, columns) = (
            group.parameters.bool("nuslerp_flatten"),
            group.parameters.bool("nuslerp_row_wise"),
        );
        match (flat, columns && dimensions > 1) {
            (true, _) => group.computed(NuSlerp(between), tensors),
            (false, false) => group.computed(NuSlerpByRow(between), tensors),
            (false, true) => group.computed(NuSlerpByColumn(between), tensors),
        }
    }
}

/// How far NuSLERP goes from the first model to the second.
fn position(group: &Group) -> f64 {
    let weights = group
        .non_base()
        .map(|input| input.parameters.float("weight"));
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    if sum.abs() < 1e-6 {
        0.5
    } else {
        weights[1] / sum
    }
}

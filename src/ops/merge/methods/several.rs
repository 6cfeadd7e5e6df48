//! `karcher`, `multislerp`, `ram`, `ramplus_tl` and `sce`: any number of models.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::merge::cast;
use crate::ops::merge::method::{
    BasePolicy, Bounds, Group, Method, Missing, Spec, optional, required, shared, within,
};
use crate::ops::merge::parameters::{Parameter, Preset, Range, Scope};
use crate::ops::merge::ram::{Ram, RamRescale};
use crate::ops::merge::sce::Sce;
use crate::ops::merge::sphere::{OnSphere, SphericalMean};

/// A method that needs the base, and takes models beside it.
const fn of_base(name: &'static str, parameters: &'static [Parameter]) -> Spec {
    Spec {
        name,
        parameters,
        base: BasePolicy::Required,
        inputs: Bounds(1, usize::MAX),
        non_base: Bounds::ANY,
        missing: Missing::Merge,
    }
}

#[derive(Debug)]
pub(super) struct Karcher;

static KARCHER: Spec = Spec {
    base: BasePolicy::Ignored,
    ..of_base(
        "karcher",
        &[
            shared("max_iter", Preset::Int(10)),
            within(
                Range::NOT_NEGATIVE,
                optional("tol", Scope::Shared, Preset::Float(1e-5)),
            ),
        ],
    )
};

/// The most steps toward a Karcher mean.
const MOST_STEPS: i64 = 10_000;

impl Method for Karcher {
    fn spec(&self) -> &'static Spec {
        &KARCHER
    }

    fn check(&self, group: &Group) -> std::result::Result<(), String> {
        let steps = group.parameters.int("max_iter");
        match (0..=MOST_STEPS).contains(&steps) {
            true => Ok(()),
            false => Err(format!(
                "max_iter is {steps}, expected a number from 0 to {MOST_STEPS}"
            )),
        }
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        if let [only] = &group.inputs[..] {
            return cast::through(group, &only.tensor);
        }
        let formula = OnSphere {
            vectors: group.inputs.len(),
            from_base: false,
            mean: SphericalMean::Karcher {
                max_iter: group.parameters.int("max_iter") as u64,
                tol: group.parameters.float("tol"),
            },
        };
        group.computed(formula, group.tensors())
    }
}

#[derive(Debug)]
pub(super) struct MultiSlerp;

static MULTISLERP: Spec = Spec {
    base: BasePolicy::Optional,
    non_base: Bounds(1, usize::MAX),
    ..of_base(
        "multislerp",
        &[
            required("weight", Scope::NonBase),
            shared("normalize_weights", Preset::Bool(true)),
            within(
                Range::NOT_NEGATIVE,
                optional("eps", Scope::Shared, Preset::Float(1e-8)),
            ),
        ],
    )
};

/// The weights of the models, normalized if that is asked for.
fn weights(group: &Group) -> Vec<f64> {
    let weight = |input: &crate::ops::merge::method::Input| input.parameters.float("weight");
    let weights: Vec<f64> = group.non_base().map(weight).collect();
    let sum = match group.parameters.bool("normalize_weights") {
        true => weights.iter().sum(),
        false => 1.0,
    };
    weights.iter().map(|weight| weight / sum).collect()
}

impl Method for MultiSlerp {
    fn spec(&self) -> &'static Spec {
        &MULTISLERP
    }

    fn check(&self, group: &Group) -> std::result::Result<(), String> {
        match weights(group).iter().all(|weight| weight.is_finite()) {
            true => Ok(()),
            false => Err("the weights of its models add up to 0, by which normalize_weights divides; choose other weights, or normalize_weights: false".to_owned()),
        }
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let models: Vec<_> = group.non_base().collect();
        if let [only] = models[..] {
            return cast::through(group, &only.tensor);
        }
        let formula = OnSphere {
            vectors: models.len(),
            from_base: group.base().is_some(),
            mean: SphericalMean::Tangent {
                weights: weights(group),
                eps: group.parameters.float("eps"),
            },
        };
        group.computed(formula, group.base_first())
    }
}

/// RAM, or RAM+.
#[derive(Debug)]
pub(super) struct Rams {
    spec: &'static Spec,
}

const EPSILON: Parameter = within(
    Range::NOT_NEGATIVE,
    optional("epsilon", Scope::Shared, Preset::Float(1e-5)),
);

static RAM_SPEC: Spec = of_base("ram", &[EPSILON]);
static RAM_PLUS_SPEC: Spec = of_base(
    "ramplus_tl",
    &[
        EPSILON,
        shared("r", Preset::Float(0.1)),
        shared("alpha", Preset::Float(0.2)),
    ],
);

pub(super) static RAM: Rams = Rams { spec: &RAM_SPEC };
pub(super) static RAM_PLUS: Rams = Rams {
    spec: &RAM_PLUS_SPEC,
};

impl Method for Rams {
    fn spec(&self) -> &'static Spec {
        self.spec
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let models = group.non_base().count();
        if models == 0 {
            let base = group.base().expect("it is required");
            return cast::through(group, &base.tensor);
        }
        let number = |name| group.parameters.float(name) as f32;
        let formula = Ram {
            models,
            epsilon: number("epsilon"),
            rescale: (self.spec.parameters.len() > 1).then(|| RamRescale {
                r: number("r"),
                alpha: number("alpha"),
            }),
        };
        group.computed(formula, group.base_first())
    }
}

#[derive(Debug)]
pub(super) struct SelectCalculateErase;

static SCE: Spec = of_base(
    "sce",
    &[
        within(
            Range::SHARE,
            optional("select_topk", Scope::Shared, Preset::Float(1.0)),
        ),
        // A choice of how votes are stored, without effect on them.
        shared("int8_mask", Preset::Bool(false)),
    ],
);

impl Method for SelectCalculateErase {
    fn spec(&self) -> &'static Spec {
        &SCE
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let models = group.non_base().count();
        if models == 0 {
            let base = group.base().expect("it is required");
            return cast::through(group, &base.tensor);
        }
        let select_topk = group.parameters.float("select_topk") as f32;
        group.computed(Sce::new(models, select_topk), group.base_first())
    }
}

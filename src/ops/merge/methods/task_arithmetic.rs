//! `task_arithmetic` and the methods that keep a part of the differences: `ties`, `dare_linear`,
//! `dare_ties`, `breadcrumbs`, `breadcrumbs_ties`, `della`, `della_linear`.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::gather;
use crate::ops::merge::cast;
use crate::ops::merge::method::{
    BasePolicy, Bounds, Group, Input, Method, Missing, Spec, optional, required, shared, within,
};
use crate::ops::merge::parameters::{Parameter, Preset, Range, Scope};
use crate::ops::merge::random_mask::RandomMask;
use crate::ops::merge::task_arithmetic::{Combination, Keep, Task, TaskArithmetic};

/// One of the family.
#[derive(Debug)]
pub(super) struct Family {
    spec: &'static Spec,
    keeps: Keeps,
    consensus: bool,
}

/// Which part of the differences is kept.
#[derive(Debug)]
enum Keeps {
    All,
    Largest,
    Between,
    Random,
    RandomByRank,
}

macro_rules! spec {
    ($name:literal, $normalize:literal, $rescale:literal $(, $more:expr)?) => {{
        const PARAMETERS: &[Parameter] = &[
            required("weight", Scope::NonBase),
            within(
                Range::SHARE,
                optional("density", Scope::NonBase, Preset::Float(1.0)),
            ),
            shared("lambda", Preset::Float(1.0)),
            shared("normalize", Preset::Bool($normalize)),
            shared("rescale", Preset::Bool($rescale)),
            // A choice of how votes are stored, without effect on them.
            shared("int8_mask", Preset::Bool(false)),
            $($more,)?
        ];
        static SPEC: Spec = Spec {
            name: $name,
            parameters: PARAMETERS,
            base: BasePolicy::Required,
            inputs: Bounds(1, usize::MAX),
            non_base: Bounds::ANY,
            missing: Missing::Merge,
        };
        &SPEC
    }};
}

const GAMMA: Parameter = within(
    Range::SHARE,
    optional("gamma", Scope::NonBase, Preset::Float(0.01)),
);

const EPSILON: Parameter = optional("epsilon", Scope::NonBase, Preset::Float(0.15));

pub(super) static TASK_ARITHMETIC: Family = Family {
    spec: spec!("task_arithmetic", false, false),
    keeps: Keeps::All,
    consensus: false,
};
pub(super) static TIES: Family = Family {
    spec: spec!("ties", true, false),
    keeps: Keeps::Largest,
    consensus: true,
};
pub(super) static DARE_LINEAR: Family = Family {
    spec: spec!("dare_linear", false, true),
    keeps: Keeps::Random,
    consensus: false,
};
pub(super) static DARE_TIES: Family = Family {
    spec: spec!("dare_ties", false, true),
    keeps: Keeps::Random,
    consensus: true,
};
pub(super) static BREADCRUMBS: Family = Family {
    spec: spec!("breadcrumbs", false, false, GAMMA),
    keeps: Keeps::Between,
    consensus: false,
};
pub(super) static BREADCRUMBS_TIES: Family = Family {
    spec: spec!("breadcrumbs_ties", false, false, GAMMA),
    keeps: Keeps::Between,
    consensus: true,
};

pub(super) static DELLA: Family = Family {
    spec: spec!("della", true, true, EPSILON),
    keeps: Keeps::RandomByRank,
    consensus: true,
};
pub(super) static DELLA_LINEAR: Family = Family {
    spec: spec!("della_linear", false, true, EPSILON),
    keeps: Keeps::RandomByRank,
    consensus: false,
};

impl Family {
    fn keep(&self, group: &Group, input: &Input) -> Keep {
        let density = input.parameters.float("density");
        match self.keeps {
            Keeps::All => Keep::All,
            Keeps::Largest => Keep::Largest { density },
            Keeps::Between => Keep::Between {
                density,
                gamma: input.parameters.float("gamma"),
            },
            Keeps::Random if density >= 1.0 => Keep::All,
            Keeps::Random => Keep::Random(mask(group, input, density)),
            Keeps::RandomByRank => Keep::RandomByRank {
                mask: mask(group, input, density),
                density,
                epsilon: input.parameters.float("epsilon"),
            },
        }
    }

    /// Whether probabilities by rank are some.
    fn check_ranks(&self, group: &Group) -> std::result::Result<(), String> {
        if !matches!(self.keeps, Keeps::RandomByRank) {
            return Ok(());
        }
        let density = |input: &&Input| input.parameters.float("density");
        for input in group.non_base() {
            let density = density(&input);
            let epsilon = input.parameters.float("epsilon");
            let is_inside = |x: f64| x > 0.0 && x < 1.0;
            if !is_inside(density) {
                continue;
            }
            if !is_inside(density - epsilon) || !is_inside(density + epsilon) {
                return Err(format!(
                    "density is {density} and epsilon {epsilon}: density - epsilon and density + epsilon must be between 0 and 1"
                ));
            }
            if ranked(&input.tensor.shape) < 2 {
                return Err(format!(
                    "its rows have a single element, and {} ranks the elements of a row; give it a density of 1, by a filter",
                    self.spec.name
                ));
            }
        }
        Ok(())
    }
}

fn mask(group: &Group, input: &Input, density: f64) -> RandomMask {
    RandomMask::new(group.seed, input.model as u64, group.name, density)
}

/// How many elements are ranked together: those along the second dimension, or along the only one.
fn ranked(shape: &[u64]) -> u64 {
    match shape {
        [] => 1,
        [only] => *only,
        [_, second, ..] => *second,
    }
}

impl Method for Family {
    fn spec(&self) -> &'static Spec {
        self.spec
    }

    fn check(&self, group: &Group) -> std::result::Result<(), String> {
        self.check_ranks(group)?;
        let weights = group
            .non_base()
            .map(|input| input.parameters.float("weight"));
        let mut sum = 0.0;
        for weight in weights {
            sum += f64::from(group.rounded("weight", weight)?);
        }
        group.rounded("the sum of all weights", sum).map(drop)
    }

    fn merge(&self, group: &Group) -> Result<Tensor> {
        let base = group.base().expect("it is required");
        let tasks = group.non_base().map(|input| Task {
            weight: input.parameters.float("weight"),
            keep: self.keep(group, input),
        });
        let tasks: Vec<Task> = tasks.collect();
        if tasks.is_empty() {
            return cast::through(group, &base.tensor);
        }
        let combination = Combination {
            consensus: self.consensus,
            normalize: group.parameters.bool("normalize"),
            rescale: group.parameters.bool("rescale"),
            lambda: group.parameters.float("lambda"),
        };
        let elements = base.tensor.shape.iter().product();
        if !matches!(self.keeps, Keeps::RandomByRank) {
            let formula: TaskArithmetic = TaskArithmetic::new(&tasks, combination, elements);
            return group.computed(formula, group.base_first());
        }
        let formula: TaskArithmetic<true> = TaskArithmetic::new(&tasks, combination, elements);
        // Rows are along the last dimension, and ranks along the second.
        let shape = base.tensor.shape.clone();
        let [first, second, rest @ ..] = &shape[..] else {
            return group.computed(formula, group.base_first());
        };
        if rest.is_empty() {
            return group.computed(formula, group.base_first());
        }
        let inputs = group.base_first().into_iter().map(|mut tensor| {
            tensor.shape = [*first, *second, rest.iter().product()].into();
            gather::transpose(group.name, &tensor)
        });
        let merged = group.computed(formula, inputs.collect::<Result<_>>()?)?;
        let mut merged = gather::transpose(group.name, &merged)?;
        merged.shape = shape;
        Ok(merged)
    }
}

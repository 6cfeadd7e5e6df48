//! The contract between a merge and its methods. A method says which inputs and parameters it
//! takes, and makes one output tensor from resolved parameters and input tensors.

use std::fmt::Debug;

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::kernels::lanes::Precision;
use crate::ops::merge::formula::Formula;
use crate::ops::merge::parameters::{Kind, Parameter, Preset, Range, Scope, Values};
use crate::ops::merge::pointwise::PointwiseKernel;
use crate::tensor::{Dtype, Name};

/// A way to merge tensors.
pub trait Method: Debug + Send + Sync {
    /// What it is called and what it takes.
    fn spec(&self) -> &'static Spec;

    /// Whether the parameters make numbers of numbers.
    ///
    /// # Errors
    /// With what is wrong with them together; the caller says where.
    fn check(&self, group: &Group) -> std::result::Result<(), String> {
        let _ = group;
        Ok(())
    }

    /// One output tensor: an input as it is, a cast of it, or the output of a new node. All inputs
    /// have the same shape and floating point dtypes; their number and the base are what the spec
    /// demands. The `home` of the result does not matter.
    ///
    /// # Errors
    /// If these inputs cannot be merged; the error names the tensor.
    fn merge(&self, group: &Group) -> Result<Tensor>;
}

/// What a method takes.
#[derive(Debug)]
pub struct Spec {
    /// As recipes name it.
    pub name: &'static str,
    pub parameters: &'static [Parameter],
    pub base: BasePolicy,
    /// Fewest and most inputs, the base included.
    pub inputs: Bounds,
    /// Fewest and most inputs beside the base.
    pub non_base: Bounds,
    /// What becomes of a tensor that some inputs lack.
    pub missing: Missing,
}

/// A number at least and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds(pub usize, pub usize);

impl Bounds {
    /// Any number.
    pub const ANY: Bounds = Bounds(0, usize::MAX);

    fn check(self, count: usize, what: &str) -> Option<String> {
        let Bounds(least, most) = self;
        if count < least {
            Some(format!(
                "needs at least {least} {what}, and here are {count}"
            ))
        } else if count > most {
            Some(format!("takes at most {most} {what}, and here are {count}"))
        } else {
            None
        }
    }
}

/// What a method does with `base_model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasePolicy {
    /// It is an input like any other.
    Ignored,
    /// It may be given.
    Optional,
    /// It must be given.
    Required,
}

/// What becomes of a tensor that some inputs lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The others are merged, if they are what the spec demands.
    Merge,
    /// As [`Missing::Merge`]; a single input passes through.
    PassSingle,
    /// As [`Missing::Merge`]; a single input passes through if it is the base.
    PassBase,
    /// With fewer inputs than the method needs, the base passes through, and without it the tensor
    /// is left out.
    BaseOrSkip,
}

/// What contributes to one output tensor.
#[derive(Debug)]
pub struct Group<'a> {
    /// The name of the output.
    pub name: &'a str,
    /// At least one.
    pub inputs: Vec<Input>,
    /// The parameters of [`Scope::Shared`](crate::ops::merge::parameters::Scope::Shared).
    pub parameters: Values,
    /// The dtype that inputs are cast to and that arithmetic happens in.
    pub working: Dtype,
    /// The dtype of the output.
    pub out: Dtype,
    /// What random choices depend on, beside model, tensor and position.
    pub seed: u64,
}

/// One input of a group.
#[derive(Debug)]
pub struct Input {
    /// Its model: a position in the recipe's list of models. It does not depend on which inputs a
    /// tensor has.
    pub model: usize,
    pub tensor: Tensor,
    pub is_base: bool,
    /// The parameters of this input.
    pub parameters: Values,
}

impl Group<'_> {
    /// The output as what `formula` computes from `inputs`.
    ///
    /// # Errors
    /// If there is no arithmetic in one of the dtypes.
    pub fn computed<F: Formula>(&self, formula: F, inputs: Vec<Tensor>) -> Result<Tensor> {
        let dtypes = inputs.iter().map(|input| input.dtype);
        let mut dtypes = dtypes.chain([self.working, self.out]);
        if let Some(dtype) = dtypes.find(|dtype| Precision::from_dtype(*dtype).is_none()) {
            let problem =
                format!("it would be computed in {dtype}; only BF16, F16 and F32 are possible");
            let code = Code::UnsupportedTensor;
            return Err(Error::of_tensor(
                code,
                inputs[0].origin(),
                self.name,
                problem,
            ));
        }
        let working = Precision::from_dtype(self.working).expect("checked");
        let name: Name = self.name.into();
        Ok(PointwiseKernel::tensor(
            &name, formula, inputs, working, self.out,
        ))
    }

    /// `number` in the dtype that arithmetic happens in.
    ///
    /// # Errors
    /// If it is infinite there; `name` says what it is.
    pub(super) fn rounded(&self, name: &str, number: f64) -> std::result::Result<f32, String> {
        let precision = Precision::from_dtype(self.working);
        let rounded = precision.map_or(number as f32, |precision| precision.round(number as f32));
        if rounded.is_finite() {
            Ok(rounded)
        } else {
            Err(format!(
                "{name} is {number}, which {} cannot hold; choose a smaller one, or a larger dtype",
                self.working
            ))
        }
    }

    /// The tensors of all inputs, in order.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.inputs
            .iter()
            .map(|input| input.tensor.clone())
            .collect()
    }

    /// The tensors of all inputs, that of the base first.
    pub fn base_first(&self) -> Vec<Tensor> {
        let inputs = self.base().into_iter().chain(self.non_base());
        inputs.map(|input| input.tensor.clone()).collect()
    }

    /// The input that is the base.
    pub fn base(&self) -> Option<&Input> {
        self.inputs.iter().find(|input| input.is_base)
    }

    /// The inputs that are not the base, in order.
    pub fn non_base(&self) -> impl Iterator<Item = &Input> {
        self.inputs.iter().filter(|input| !input.is_base)
    }
}

impl Spec {
    /// Checks the models of a group: `base` is the base model's, whether or not it is among them.
    ///
    /// # Errors
    /// With what the method needs; the caller says where.
    pub fn check(&self, models: &[usize], base: Option<usize>) -> std::result::Result<(), String> {
        let base = base.filter(|_| self.base != BasePolicy::Ignored);
        let has_base = base.is_some_and(|base| models.contains(&base));
        if (0..models.len()).any(|i| models[..i].contains(&models[i])) {
            return Err("one model is given twice".to_owned());
        }
        if base.is_some() && !has_base {
            return Err("the base model is not among the inputs".to_owned());
        }
        if self.base == BasePolicy::Required && !has_base {
            return Err(format!("{} needs a base_model", self.name));
        }
        let non_base = models.len() - usize::from(has_base);
        let problem = (self.inputs.check(models.len(), "models"))
            .or_else(|| self.non_base.check(non_base, "models beside the base"));
        match problem {
            Some(problem) => Err(format!("{} {problem}", self.name)),
            None => Ok(()),
        }
    }
}

/// A number that must be given.
pub(super) const fn required(name: &'static str, scope: Scope) -> Parameter {
    optional(name, scope, Preset::Required)
}

/// A number for the output or each input.
pub(super) const fn optional(name: &'static str, scope: Scope, preset: Preset) -> Parameter {
    Parameter {
        name,
        kind: Kind::Float,
        range: Range::FINITE,
        scope,
        preset,
    }
}

/// `parameter`, which must be in `range`.
pub(super) const fn within(range: Range, parameter: Parameter) -> Parameter {
    Parameter { range, ..parameter }
}

/// A parameter of the output, of the kind of its preset.
pub(super) const fn shared(name: &'static str, preset: Preset) -> Parameter {
    let kind = match preset {
        Preset::Bool(_) => Kind::Bool,
        Preset::Int(_) => Kind::Int,
        Preset::Text(_) => Kind::Text,
        Preset::Float(_) | Preset::Required | Preset::Absent => Kind::Float,
    };
    Parameter {
        name,
        kind,
        range: Range::FINITE,
        scope: Scope::Shared,
        preset,
    }
}

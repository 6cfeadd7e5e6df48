//! `--dtype`: one dtype for every floating tensor. Numbers are rounded to it, and quantized weights are
//! given as numbers.
//!
//! | tensor | becomes |
//! |---|---|
//! | BF16, F16, F32, F64 | the target; as it is if it has that dtype |
//! | codes and their companions | the weight in the target |
//! | integers, booleans | as they are |
//! | scales of activations and of the KV cache | as they are; left out if no quantization is declared any more |

mod config;

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Result, Warning};
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::ops::cast::CastRules;
use crate::ops::params::chosen;
use crate::ops::{
    Conversions, Converted, Group, Operator, Params, Setting, Takes, Value, convert, is_convertible,
};
use crate::quant::{self, Role, Scheme};
use crate::tensor::Name;

/// Convert every floating tensor to one dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DtypeParams {
    pub to: Option<Precision>,
}

impl Params for DtypeParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: DTYPE,
            flag: "dtype",
            takes: Takes::Choice(Precision::NAMES),
            group: Group::Tensors,
            help: "Convert all floating tensors to this dtype; dequantizes quantized weights",
            comment: "",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        self.to = Some(chosen(value)?);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let to = self.to.iter();
        to.map(|to| Value::text(to.name())).collect()
    }

    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if let Some(to) = self.to {
            operators.push(Box::new(InDtype {
                to,
                others: CastRules::new(conversions.rules)?,
                only_quantized: false,
                leaves_unreadable: false,
                only_packed: false,
            }));
        }
        Ok(operators)
    }
}

/// Converts every floating tensor of a catalog to one dtype.
#[derive(Debug)]
pub struct InDtype {
    to: Precision,
    /// Rules for tensors that get another dtype.
    others: CastRules,
    /// Leave tensors that are not quantized as they are.
    only_quantized: bool,
    /// Leave weights that cannot be dequantized as they are.
    leaves_unreadable: bool,
    /// Do so only if there are weights that no tensor has the name of, or that are not moved one by one.
    only_packed: bool,
}

impl InDtype {
    /// Dequantizes to `to`, and changes nothing else.
    pub fn only_quantized(to: Precision) -> Self {
        InDtype {
            to,
            others: CastRules::default(),
            only_quantized: true,
            leaves_unreadable: false,
            only_packed: false,
        }
    }

    /// The same, except for weights that cannot be dequantized: somebody else has to notice those that are still there.
    pub fn where_possible(to: Precision) -> Self {
        InDtype {
            leaves_unreadable: true,
            ..Self::only_quantized(to)
        }
    }

    /// The same, if there are weights that cannot be replaced one by one because they are packed.
    pub fn if_packed(to: Precision) -> Self {
        InDtype {
            only_packed: true,
            ..Self::where_possible(to)
        }
    }

    /// The dtype that the tensor called `name` is to have.
    fn target(&self, name: &str) -> Precision {
        self.others.target(name).unwrap_or(self.to)
    }
}

/// Whether weights of `tensors` are under other names than their own, or of a scheme that does not move them.
fn has_packed(scheme: &dyn Scheme, tensors: &IndexMap<Name, Tensor>) -> bool {
    tensors
        .iter()
        .any(|(name, tensor)| match scheme.role(tensors, name, tensor) {
            Role::Codes(weight) => weight != **name || !scheme.is_movable(),
            Role::Companion(_) | Role::Plain => false,
        })
}

/// Checks that no tensor is called `weight`, as the numbers of the codes called `name` are to be.
fn check_free(
    tensors: &IndexMap<Name, Tensor>,
    weight: &str,
    name: &str,
    codes: &Tensor,
) -> Result<()> {
    if !tensors.contains_key(weight) {
        return Ok(());
    }
    let problem =
        format!("its numbers would be called {weight}, and there is such a tensor already");
    Err(Error::of_tensor(Code::NameTaken, codes.origin(), name, problem).about(DTYPE))
}

impl Operator for InDtype {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let scheme = match quant::declared(catalog) {
            Err(_) if self.leaves_unreadable => return Ok(()),
            scheme => scheme?,
        };
        if self.only_packed && !has_packed(&*scheme, &catalog.tensors) {
            return Ok(());
        }
        let old = std::mem::take(&mut catalog.tensors);
        let mut tensors = IndexMap::with_capacity(old.len());
        let (mut cast_count, mut dequantized_count) = (0, 0);
        let mut unreadable: HashSet<String> = HashSet::new();
        let mut companions = Vec::new();
        for (name, tensor) in &old {
            match scheme.role(&old, name, tensor) {
                Role::Codes(weight) => {
                    let to = self.target(&weight);
                    match scheme.decoded(&old, &weight, tensor, to) {
                        Err(_) if self.leaves_unreadable => {
                            unreadable.insert(weight);
                            tensors.insert(name.clone(), tensor.clone());
                        }
                        numbers => {
                            if weight != **name {
                                check_free(&old, &weight, name, tensor)?;
                            }
                            dequantized_count += 1;
                            tensors.insert(weight.into(), numbers?);
                        }
                    }
                }
                Role::Companion(weight) if self.leaves_unreadable => {
                    companions.push((name, weight));
                    tensors.insert(name.clone(), tensor.clone());
                }
                Role::Companion(_) => scheme.check_companion(&old, name, tensor)?,
                Role::Plain => {
                    let stays = self.only_quantized || quant::is_activation_scale(name);
                    let mut new = tensor.clone();
                    if is_convertible(tensor.dtype) && !stays {
                        new = convert(name, tensor, self.target(name))?;
                        cast_count += usize::from(tensor.dtype != new.dtype);
                    }
                    tensors.insert(name.clone(), new);
                }
            }
        }
        let of_read = companions.into_iter();
        let of_read = of_read.filter(|(_, weight)| !unreadable.contains(weight));
        let of_read: HashSet<&Name> = of_read.map(|(name, _)| name).collect();
        tensors.retain(|name, _| !of_read.contains(name));
        catalog.tensors = tensors;
        catalog.report.add(Converted {
            cast: cast_count,
            dequantized: dequantized_count,
        });
        if self.only_quantized {
            if dequantized_count > 0 && unreadable.is_empty() {
                quant::undeclare(catalog)?;
            }
            return Ok(());
        }
        // Adapters are merged into what was dequantized before.
        if catalog.report.count("cast") + catalog.report.count("dequantized") == 0 {
            catalog.report.warnings.push(
                Warning::new(
                    Code::NoEffect,
                    format!(
                        "it has no effect: every floating-point tensor of this view is {} already",
                        self.to.dtype()
                    ),
                )
                .about(DTYPE),
            );
        }
        config::declare(catalog, self.to)
    }
}

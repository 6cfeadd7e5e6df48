//! Experts: the weights of a mixture-of-experts layer, one tensor per expert and projection, or
//! fused into two tensors. Changing the form moves ranges of bytes and computes none.
//!
//! | form | tensors of a layer with `E` experts, hidden size `H` and intermediate size `I` |
//! |---|---|
//! | per expert | `<p>.experts.<j>.{gate,up}_proj.weight` `[I, H]`, `<p>.experts.<j>.down_proj.weight` `[H, I]` |
//! | fused | `<p>.experts.gate_up_proj` `[E, 2I, H]`, of each expert the rows of gate, then those of up; `<p>.experts.down_proj` `[E, H, I]` |
//!
//! Companions (the scales of a quantized weight) take the same form: those of a fused tensor are
//! stacked per expert.

mod fuse;
pub(in crate::ops) mod model;
mod unfuse;
mod weight;

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::EXPERTS;
use crate::error::{Code, Error, Result, Warning};
use crate::named::{Named, named};
use crate::ops::params::chosen;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::quant::{self, Doing, Moves};
use crate::shown::Show;
use crate::tensor::Name;
use model::Model;
use weight::Change;
pub(in crate::ops) use weight::{DOWN, GATE, GATE_UP, UP};

/// Gives all experts of a catalog the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experts {
    /// Fused tensors become tensors of single experts.
    Unfuse,
    /// Tensors of single experts become fused ones.
    Fuse,
}

named!(Experts {
    Unfuse: "unfuse",
    Fuse: "fuse",
});

/// Give all experts the same form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpertsParams {
    pub form: Option<Experts>,
}

impl Params for ExpertsParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: EXPERTS,
            flag: "",
            takes: Takes::Flags(&[
                (
                    "unfuse",
                    "unfuse-experts",
                    "Split fused experts (experts.gate_up_proj, experts.down_proj) into one tensor per expert",
                ),
                (
                    "fuse",
                    "fuse-experts",
                    "Fuse the experts of each layer into gate_up_proj and down_proj",
                ),
            ]),
            group: Group::Tensors,
            help: "",
            comment: "",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        self.form = Some(chosen(value)?);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let form = self.form.iter();
        form.map(|form| Value::text(form.name())).collect()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let form = self.form.iter();
        Ok(form
            .map(|form| Box::new(*form) as Box<dyn Operator>)
            .collect())
    }
}

impl Operator for Experts {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let model = Model::from_catalog(catalog)?;
        model.refuse_transposed(self.name())?;
        let changes = match self {
            Experts::Unfuse => unfuse::changes(catalog, &model)?,
            Experts::Fuse => fuse::changes(catalog, &model)?,
        };
        if changes.is_empty() {
            catalog.report.warnings.push(
                Warning::new(
                    Code::NoEffect,
                    format!(
                        "it has no effect: no tensor of this view is called {}",
                        match self {
                            Experts::Unfuse => "*.experts.{gate_up,down}_proj",
                            Experts::Fuse => "*.experts.<number>.{gate,up,down}_proj.weight",
                        }
                    ),
                )
                .about_value(EXPERTS, self.name()),
            );
        }
        quant::follow(catalog, &moves(catalog, &changes), Doing::Regrouping)?;
        carry_out(catalog, changes)
    }
}

/// What becomes of each tensor.
fn moves(catalog: &Catalog, changes: &[Change]) -> Moves {
    let mut becomes: HashMap<&Name, Vec<Name>> = HashMap::new();
    for change in changes {
        for old in &change.old {
            let new = change.new.iter().map(|(name, _)| name);
            let new = new.filter(|new| weight::are_of_one_kind(old, new)).cloned();
            becomes.insert(old, new.collect());
        }
    }
    let names = catalog.tensors.keys();
    Moves::new(names.map(|name| {
        let new = becomes.remove(name);
        (name.clone(), new.unwrap_or_else(|| vec![name.clone()]))
    }))
}

fn carry_out(catalog: &mut Catalog, changes: Vec<Change>) -> Result<()> {
    let taken = changes.iter().flat_map(|change| &change.new);
    for (name, tensor) in taken {
        if let Some(other) = catalog.tensors.get(name) {
            return Err(Error::of_tensor(
                Code::NameTaken,
                other.origin(),
                name,
                format!(
                    "the view has it already, and would have it a second time from {}",
                    tensor.origin().shown()
                ),
            )
            .with_hint("take the experts in one form only"));
        }
    }
    let mut old = HashSet::new();
    let mut new: HashMap<usize, Vec<(Name, Tensor)>> = HashMap::new();
    for change in changes {
        let names = change.old.iter();
        let positions = names.filter_map(|name| catalog.tensors.get_index_of(name));
        let positions: Vec<usize> = positions.collect();
        if let Some(&first) = positions.iter().min() {
            new.insert(first, change.new);
        }
        old.extend(positions);
    }
    let mut tensors = IndexMap::with_capacity(catalog.tensors.len());
    for (i, (name, tensor)) in std::mem::take(&mut catalog.tensors).into_iter().enumerate() {
        tensors.extend(new.remove(&i).into_iter().flatten());
        if !old.contains(&i) {
            tensors.insert(name, tensor);
        }
    }
    catalog.tensors = tensors;
    Ok(())
}

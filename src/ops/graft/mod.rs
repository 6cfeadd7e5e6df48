//! Graft: tensors of another checkpoint replace the base's tensors of the same names.
//!
//! Only tensors that both have are taken, each with all companions of its quantization. The companions of
//! the replaced tensor are removed with it. Several grafts apply in order: the last one that has a
//! tensor wins. config.json stays the base's, but for what it says of quantization.

mod checks;
mod choice;
mod quantization;
mod source;

use indexmap::IndexMap;

use crate::catalog::{Catalog, GraftReport, Role, SourceReport, Tensor};
use crate::error::Result;
use crate::error::setting::GRAFT;
use crate::ops::dtype::InDtype;
use crate::ops::numbers::Numbers;
use crate::ops::pattern::Pattern;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::quant::{companions, weight_of};
use crate::source::Location;
use crate::tensor::Name;
use choice::Choice;
use source::{Afterwards, GraftSource};

/// Where tensors are taken from, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraftRequest {
    /// A directory, or a single file of tensors.
    pub source: Location,
    /// A regular expression of whole names; without one, all names that the view has too.
    pub names: Option<String>,
}

/// Replace tensors by those of the same names in these checkpoints, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraftParams {
    pub grafts: Vec<GraftRequest>,
}

impl Params for GraftParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: GRAFT,
            flag: "graft",
            takes: Takes::SelectiveSources,
            group: Group::Sources,
            help: "Replace tensors by those of the same names in this directory, .safetensors or .gguf file: all, or those whose whole name matches REGEX (repeatable, the last that has a tensor counts)",
            comment: "replace the tensors of the same names, in this order",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        let (source, names) = value.into_selective_source();
        if let Some(names) = &names {
            Pattern::new(GRAFT, names)?;
        }
        self.grafts.push(GraftRequest { source, names });
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let grafts = self.grafts.iter().cloned();
        let value = |GraftRequest { source, names }| Value::Source {
            location: source,
            weight: 1.0,
            names,
        };
        grafts.map(value).collect()
    }

    fn keeps_shards(&self) -> bool {
        true
    }

    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let numbers = Numbers::of(conversions)?;
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if let (Some(to), false) = (conversions.dtype, self.grafts.is_empty()) {
            operators.push(Box::new(InDtype::if_packed(to)));
        }
        for GraftRequest { source, names } in &self.grafts {
            operators.push(Box::new(Graft {
                source: GraftSource::open(source, names.as_deref(), &numbers)?,
                afterwards: Afterwards {
                    dequantizes: conversions.dtype.is_some(),
                    quantizes: conversions.quantizes,
                },
            }));
        }
        Ok(operators)
    }
}

/// Replaces tensors of a catalog by those of a checkpoint.
#[derive(Debug)]
struct Graft {
    source: GraftSource,
    afterwards: Afterwards,
}

impl Graft {
    /// `old` with the tensors of `choice` in their places. Also returns how many companions of the
    /// replaced tensors have no successor.
    fn grafted(
        &self,
        old: &IndexMap<Name, Tensor>,
        choice: &Choice,
    ) -> (IndexMap<Name, Tensor>, usize) {
        let mut tensors = IndexMap::with_capacity(old.len());
        let mut removed = 0;
        for (name, tensor) in old {
            if choice.taken.contains(&**name) {
                tensors.extend([self.source.tensor(name, tensor.home)]);
            } else if weight_of(name).is_some_and(|weight| choice.taken.contains(weight)) {
                removed += 1;
                continue;
            } else {
                tensors.insert(name.clone(), tensor.clone());
                continue;
            }
            let new = companions(name).filter(|companion| {
                choice.taken.contains(&**companion) && !old.contains_key(&**companion)
            });
            tensors.extend(new.map(|companion| self.source.tensor(&companion, tensor.home)));
        }
        (tensors, removed)
    }
}

impl Operator for Graft {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let GraftSource { checkpoint, names } = &self.source;
        let choice = Choice::new(&self.source, catalog)?;
        let warnings = checks::warnings(&self.source, catalog, &choice, self.afterwards);
        catalog.report.warnings.extend(warnings);
        checks::check_shapes(&self.source, catalog, &choice)?;
        let change = quantization::check(&self.source, catalog, &choice)?;

        let old = std::mem::take(&mut catalog.tensors);
        let (tensors, removed) = self.grafted(&old, &choice);
        catalog.tensors = tensors;
        let taken = choice.taken.iter().map(|name| catalog.tensors[*name].len());
        let added_bytes = taken.fold(0, u64::saturating_add);
        catalog.sources.extend(&checkpoint.shards, Role::Graft);
        if choice.not_in_view.is_empty() {
            catalog.report.name_source(&checkpoint.path);
        }
        catalog.report.sources.push(SourceReport {
            role: Role::Graft,
            path: checkpoint.path.clone(),
            tensors: checkpoint.tensors.len(),
            bytes: checkpoint.bytes,
            added: choice.taken.len(),
            added_bytes,
            overlapping: 0,
            left_out: checkpoint.left_out.clone(),
            graft: Some(GraftReport {
                names: names.as_ref().map(|names| names.text().to_owned()),
                not_matching: choice.not_matching,
                not_in_view: choice.not_in_view.len(),
                removed,
            }),
        });
        match change {
            Some(change) => quantization::declare(&self.source, catalog, change, self.afterwards),
            None => Ok(()),
        }
    }
}

//! Layouts of names: what the model's authors call the tensors of a checkpoint, and what transformers 5
//! calls them in memory. Tensors get other names, and some become others: single experts are fused, projections
//! that were released as one are apart. Which, by `model_type`, is in `families/`.

mod converting;
mod families;
mod layout;
mod pattern;
mod steps;

use std::collections::HashMap;
use std::path::Path;

use crate::catalog::{CONFIG_FILE, Catalog, OperatorReport};
use crate::error::setting::{NAMES, RENAME};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::named::Named;
use crate::ops::params::chosen;
use crate::ops::rename;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value, regroup};
use crate::quant;
use crate::spelling::did_you_mean;
use crate::tensor::Name;
use crate::text::counted;
use converting::Facts;
pub use families::{Conversion, Family, Rule, Step, families};
pub use layout::NameLayout;
use pattern::replaced;

/// Which layout of names to give a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamesParams {
    pub layout: Option<NameLayout>,
}

impl Params for NamesParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: NAMES,
            flag: "names",
            takes: Takes::Choice(NameLayout::NAMES),
            group: Group::Tensors,
            help: "Give tensors the names and forms that the model's authors released them in, or that transformers 5 has in memory, by model_type",
            comment: "",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        self.layout = Some(chosen(value)?);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let layout = self.layout.iter();
        layout.map(|layout| Value::text(layout.name())).collect()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let layout = self.layout.into_iter();
        Ok(layout
            .map(|layout| Box::new(GiveNames(layout)) as Box<dyn Operator>)
            .collect())
    }
}

/// Brings a catalog into a layout.
#[derive(Debug)]
struct GiveNames(NameLayout);

/// What was renamed.
#[derive(Debug)]
struct Renamed(usize);

impl OperatorReport for Renamed {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("renamed", self.0)]
    }
}

impl Operator for GiveNames {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let to = self.0;
        let (model_type, family) = family(catalog)?;
        let facts = Facts::from_catalog(catalog)?;
        let changes = converting::changes(catalog, family.rules, to, &facts)?;
        let (old, new) = changes.iter().fold((0, 0), |(old, new), change| {
            (old + change.old.len(), new + change.new.len())
        });
        if !changes.is_empty() {
            // What a change has made holds the same as what it was made of, as a whole.
            let moves = regroup::moves(catalog, &changes, |_, _| true);
            quant::follow(catalog, &moves, quant::Doing::Regrouping)?;
            let hint = "take the weights in one layout only";
            regroup::carry_out(catalog, changes, hint)?;
        }
        let names = new_names(catalog, family.rules, to);
        let hint = "take the tensors in one layout only";
        let renamed = rename::give_names(catalog, names, NAMES, hint)?;
        if renamed == 0 && old == 0 {
            let problem = match family.rules {
                [] => format!(
                    "it has no effect: the two layouts of model_type {model_type} are the same"
                ),
                _ => format!(
                    "it has no effect: no tensor of this view is in the {} layout of model_type {model_type}",
                    to.other().name()
                ),
            };
            let warning = Warning::new(Code::NoEffect, problem);
            let warning = warning.about_value(NAMES, to.name());
            catalog.report.warnings.push(warning);
            return Ok(());
        }
        catalog.report.add(Renamed(renamed));
        let mut parts = Vec::new();
        if renamed > 0 {
            parts.push(format!("{} renamed", counted(renamed, "tensor")));
        }
        if old > 0 {
            parts.push(format!("{} made of {old}", counted(new, "tensor")));
        }
        catalog.report.notes.push(format!(
            "names: the {} layout of model_type {model_type}: {}",
            to.name(),
            parts.join(", ")
        ));
        Ok(())
    }
}

/// The `model_type` in the config.json of `catalog`, and its family.
fn family(catalog: &mut Catalog) -> Result<(String, &'static Family)> {
    let Some(config) = catalog.config_mut()? else {
        let directory = catalog.report.sources[0].path.clone();
        let problem = "the file is missing";
        return Err(unknown(&directory.join(CONFIG_FILE), problem, ""));
    };
    let value = config.get("model_type");
    let model_type = value.as_ref().and_then(|value| value.as_str());
    let model_type = model_type.unwrap_or_default();
    match families().find(|family| family.model_types.contains(&model_type)) {
        Some(family) => Ok((model_type.to_owned(), family)),
        None => {
            let problem = match &value {
                Some(value) => format!("model_type is {value}"),
                None => "it has no model_type".to_owned(),
            };
            Err(unknown(config.path(), &problem, model_type))
        }
    }
}

fn unknown(config: &Path, problem: &str, model_type: &str) -> Error {
    let known = families().flat_map(|family| family.model_types);
    let mut known: Vec<&str> = known.copied().collect();
    known.sort_unstable();
    let problem = format!(
        "{problem}{}, and ckptfs knows the layouts of names of {}",
        did_you_mean(model_type, known.iter().copied()),
        known.join(", ")
    );
    Error::of_file(Code::UnknownModelType, config, problem)
        .with_hint(Hint::leave_out(NAMES).or(Hint::give(RENAME).to("rename tensors by rules")))
}

/// What the tensors of `catalog` are called in the layout `to`, in their order.
fn new_names(catalog: &Catalog, rules: &[&[Rule]], to: NameLayout) -> Vec<Name> {
    let rules = rules.iter().copied().flatten();
    let mut rules: Vec<(&str, &str)> = rules
        .filter_map(|rule| match *rule {
            Rule::Renamed(released, transformers) => Some((
                to.other().of(released, transformers),
                to.of(released, transformers),
            )),
            Rule::Converted(_) => None,
        })
        .collect();
    let (first, mut inner): (Vec<_>, Vec<_>) =
        rules.drain(..).partition(|(from, _)| from.starts_with('^'));
    if to == NameLayout::Released {
        inner.reverse();
    }
    let renamed = |name: &str| {
        let mut first = first.iter();
        let start = first.find_map(|(from, to)| replaced(name, from, to));
        let start = start.unwrap_or_else(|| name.to_owned());
        inner.iter().fold(start, |name, (from, to)| {
            replaced(&name, from, to).unwrap_or(name)
        })
    };
    let mut weights: HashMap<&str, String> = HashMap::new();
    let names = catalog.tensors.keys().map(|name| {
        // Companions are called by their weight.
        let weight = quant::weight_of(name).filter(|weight| catalog.tensors.contains_key(*weight));
        let Some(weight) = weight else {
            return renamed(name).into();
        };
        let new = weights.entry(weight).or_insert_with(|| renamed(weight));
        [new, &name[weight.len()..]].concat().into()
    });
    names.collect()
}

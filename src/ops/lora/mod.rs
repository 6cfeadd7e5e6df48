//! LoRA: PEFT adapters merged into the weights, as PEFT's `merge_and_unload` writes them.
//!
//! `W + s · B·A` with `s = α/r` (or `α/√r`) for linear layers; its transpose where the weight is
//! stored transposed (embeddings, Conv1D); scaled row by row to trained lengths with DoRA. What an
//! adapter holds besides factors (`modules_to_save`, trained biases) takes the base's place. The
//! numbers are defined in [`crate::kernels::low_rank`].

mod adapter;
mod addition;
mod columns;
mod embeddings;
mod experts;
mod factors;
mod kernels;
mod layers;
mod merging;
mod renaming;
mod targets;

use std::path::PathBuf;

use serde::Serialize;

use crate::catalog::{Catalog, OperatorReport};
use crate::error::setting::LORA;
use crate::error::{Code, Error, Result, Warning};
use crate::ops::dtype::InDtype;
use crate::ops::experts::model::Model;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::shown::Show;
use crate::source::Location;
use adapter::Adapter;
use layers::Layer;
use merging::{Merging, WeightChange};
use renaming::Renaming;
use targets::{Contents, Factors, unwrapped};

/// Modules of an adapter times patterns that give them ranks.
const MOST_MATCHES: usize = 1 << 28;

/// The most adapters in one view.
const MOST_ADAPTERS: usize = 16;

/// An adapter to merge.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraRequest {
    /// Where adapter_config.json and adapter_model.safetensors are.
    pub adapter: Location,
    /// What its scaling is multiplied by: 1 merges it as it was trained.
    pub weight: f64,
}

/// Merge these adapters, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoraParams {
    pub adapters: Vec<LoraRequest>,
}

impl Params for LoraParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: LORA,
            flag: "lora",
            takes: Takes::WeightedSources,
            group: Group::Sources,
            help: "PEFT adapter to merge into the base, with its scaling multiplied by WEIGHT (repeatable, merged in order)",
            comment: "merged in this order",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        let (adapter, weight) = value.into_source();
        self.adapters.push(LoraRequest { adapter, weight });
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        let adapters = self.adapters.iter().cloned();
        let source = |LoraRequest {
                          adapter: location,
                          weight,
                      }| Value::Source { location, weight };
        adapters.map(source).collect()
    }

    fn keeps_shards(&self) -> bool {
        true
    }

    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        if self.adapters.len() > MOST_ADAPTERS {
            return Err(Error::new(
                Code::OverLimit,
                format!(
                    "the request has {} adapters; at most {MOST_ADAPTERS} are merged at once",
                    self.adapters.len()
                ),
            ));
        }
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if let Some(to) = conversions.dtype {
            // Adapters are merged into numbers.
            operators.push(Box::new(InDtype::only_quantized(to)));
        }
        for LoraRequest { adapter, weight } in &self.adapters {
            operators.push(Box::new(Lora::open(adapter, *weight)?));
        }
        Ok(operators)
    }
}

/// What a LoRA adapter changes.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterReport {
    pub path: PathBuf,
    /// What its scalings were multiplied by.
    pub weight: f64,
    /// Tensors that it is merged into.
    pub merged: usize,
    /// Tensors that it gives as a whole.
    pub replaced: usize,
    /// The different scalings of its products, in ascending order.
    pub scalings: Vec<f64>,
}

impl OperatorReport for AdapterReport {}

/// Merges an adapter into a catalog.
#[derive(Debug)]
pub(crate) struct Lora {
    adapter: Adapter,
    weight: f64,
}

impl Lora {
    /// The adapter at `location`, its scaling multiplied by `weight`.
    ///
    /// # Errors
    /// If it is not a LoRA adapter of PEFT that can be merged.
    pub(crate) fn open(location: &Location, weight: f64) -> Result<Self> {
        if !weight.is_finite() {
            return Err(Error::new(
                Code::BadValue,
                format!(
                    "the weight of the adapter {} is {weight}, but must be finite",
                    location.as_path().shown()
                ),
            ));
        }
        Ok(Lora {
            adapter: Adapter::open(&*location.open()?)?,
            weight,
        })
    }
}

impl Operator for Lora {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let contents = Contents::from_adapter(&self.adapter)?;
        if contents
            .modules
            .len()
            .saturating_mul(self.adapter.settings.patterns())
            > MOST_MATCHES
        {
            return Err(Error::of_file(
                Code::OverLimit,
                &self.adapter.directory,
                "it has too many modules for so many rank and alpha patterns",
            ));
        }
        let own_names = contents.changed_names(&self.adapter.settings);
        let has_place = |name: &str| has_place(catalog, name);
        let renaming = Renaming::find(catalog, &self.adapter, &own_names, &has_place)?;
        if !renaming.is_none() {
            catalog.report.notes.push(format!(
                "names of the adapter {} are taken for the base's by what they begin with: {renaming}",
                self.adapter.directory.shown()
            ));
        }
        let changed: Vec<String> = own_names.iter().map(|name| renaming.apply(name)).collect();
        let merging = Merging {
            adapter: &self.adapter,
            weight: self.weight,
            renaming,
        };
        embeddings::check_tied(catalog, &self.adapter, changed.iter().map(String::as_str))?;

        let mut resized = false;
        for (name, key) in &contents.replacements {
            resized |= merging.replace(catalog, name, key)?;
        }
        let model = Model::from_catalog(catalog).unwrap_or_default();
        let mut changes = Vec::new();
        for (module, factors) in &contents.modules {
            changes.extend(self::changes(&merging, catalog, &model, module, factors)?);
        }
        let mut report = AdapterReport {
            path: self.adapter.directory.clone(),
            weight: self.weight,
            merged: 0,
            replaced: contents.replacements.len(),
            scalings: Vec::new(),
        };
        for change in changes {
            report.merged += 1;
            report.scalings.push(f64::from(change.change.scale));
            carry_out(catalog, change);
        }
        report.scalings.sort_by(f64::total_cmp);
        report.scalings.dedup();
        if report.merged + report.replaced == 0 {
            let directory = self.adapter.directory.shown();
            let warnings = &mut catalog.report.warnings;
            warnings.push(Warning::new(
                Code::NoEffect,
                format!("the adapter {directory} has no tensors"),
            ));
        } else if self.weight == 0.0 && report.merged > 0 {
            let directory = self.adapter.directory.display();
            let warnings = &mut catalog.report.warnings;
            warnings.push(Warning::new(
                Code::NoEffect,
                format!("the adapter {directory} has no effect: its weight is 0"),
            ));
        }
        catalog.sources.add(&self.adapter.weights);
        catalog.report.add(report);
        if resized {
            embeddings::follow_vocabulary(catalog, &self.adapter)
        } else {
            Ok(())
        }
    }
}

/// Whether the base has what is called `name`, or its parts.
fn has_place(catalog: &Catalog, name: &str) -> bool {
    catalog.tensors.contains_key(name) || experts::are_apart(catalog, name)
}

fn carry_out(catalog: &mut Catalog, change: WeightChange) {
    let WeightChange {
        name,
        matrix,
        change,
    } = change;
    let weight = &mut catalog.tensors[&name];
    *weight = kernels::merged(&name, weight.clone(), matrix, change);
}

/// What is merged for the factors of one module: its weight, and its bias if there is one.
fn changes(
    merging: &Merging,
    catalog: &Catalog,
    model: &Model,
    module: &str,
    factors: &Factors,
) -> Result<Vec<WeightChange>> {
    let (path, depth) = unwrapped(module);
    let parameters: Vec<&str> = merging.parameters(path).collect();
    let is_weight = parameters == ["weight"];
    if depth > 0 || !(parameters.is_empty() || is_weight) {
        return experts::changes(merging, catalog, model, path, depth, factors);
    }
    let name = merging.renaming.apply(&format!("{path}.weight"));
    let weight = merging.target(catalog, &name, factors.any())?;
    if weight.len() == 0 {
        return Ok(Vec::new());
    }
    let (a, b) = merging.factors(path, factors)?;
    let layer = Layer {
        merging,
        name: &name,
        weight: &weight,
        factors,
        a,
        b,
    };
    let pattern = if is_weight {
        format!("{path}.weight")
    } else {
        path.to_owned()
    };
    let rank = layer.rank(&pattern)?;
    let scale = merging.scale(&pattern, factors)?;
    let mut merges = vec![layer.change(catalog, rank, scale, is_weight)?];
    if let Some(bias) = &factors.bias {
        let name = merging.renaming.apply(&format!("{path}.bias"));
        merges.push(merging.bias(catalog, name, bias, scale)?);
    }
    Ok(merges)
}

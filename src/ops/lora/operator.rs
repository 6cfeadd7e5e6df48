//! The operator: an adapter merged into a catalog.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Serialize;

use crate::catalog::{Catalog, OperatorReport};
use crate::error::setting::LORA_EXPERTS;
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::named::Named;
use crate::ops::Operator;
use crate::ops::experts::model::Model;
use crate::ops::lora::adapter::Adapter;
use crate::ops::lora::expert_names::FusedPart;
use crate::ops::lora::layers::Layer;
use crate::ops::lora::merging::{Merging, WeightChange};
use crate::ops::lora::renaming::Renaming;
use crate::ops::lora::single_experts::SingleExpert;
use crate::ops::lora::storage::ExpertStorage;
use crate::ops::lora::targets::{Contents, Factors, unwrapped};
use crate::ops::lora::writer::ExpertOrder;
use crate::ops::lora::{embeddings, expert_names, experts, kernels, single_experts, tokens, tying};
use crate::shown::Show;
use crate::source::Location;
use crate::text::listing;

/// Modules of an adapter times patterns that give them ranks.
const MOST_MATCHES: usize = 1 << 28;

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
    /// Whether it leaves it to the request to say how experts are stored.
    #[serde(skip)]
    pub asks_order: bool,
}

impl OperatorReport for AdapterReport {}

/// Merges an adapter into a catalog.
#[derive(Debug)]
pub(crate) struct Lora {
    adapter: Adapter,
    weight: f64,
    /// How its experts are stored if it does not say.
    experts: Option<ExpertOrder>,
}

impl Lora {
    /// The adapter at `location`, its scaling multiplied by `weight`, with experts in the order `experts` if it
    /// does not say their order.
    ///
    /// # Errors
    /// If it is not a LoRA adapter of PEFT that can be merged.
    pub(crate) fn open(
        location: &Location,
        weight: f64,
        experts: Option<ExpertOrder>,
    ) -> Result<Self> {
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
            experts,
        })
    }
}

impl Operator for Lora {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let mut contents = Contents::from_adapter(&self.adapter)?;
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
        let tied = tying::tie(catalog, &self.adapter, &mut contents)?;
        let own_names = contents.changed_names(&self.adapter.settings);
        let has_place = |name: &str| has_place(catalog, name);
        let renaming = Renaming::find(catalog, &self.adapter, &own_names, &has_place)?;
        if !renaming.is_none() {
            catalog.report.notes.push(format!(
                "names of the adapter {} are taken for the base's by what they begin with: {renaming}",
                self.adapter.directory.shown()
            ));
        }
        let model = Model::from_catalog(catalog).unwrap_or_default();
        let experts = ExpertStorage::find(
            &self.adapter,
            catalog,
            &model,
            &contents,
            &renaming,
            self.experts,
        )?;
        let merging = Merging {
            adapter: &self.adapter,
            weight: self.weight,
            renaming,
            experts,
        };
        let mut resized = false;
        for (name, key) in &contents.replacements {
            resized |= merging.replace(catalog, name, key)?;
        }
        for (module, key) in &contents.tokens {
            let name = merging.renaming.apply(&format!("{module}.weight"));
            let base = merging.target(catalog, &name, key)?;
            let merged = tokens::with_rows(&merging, &name, &base, module, key)?;
            catalog.tensors[name.as_str()] = merged;
        }
        let mut changes = Vec::new();
        let mut fused: IndexMap<String, Vec<SingleExpert>> = IndexMap::new();
        for (module, factors) in &contents.modules {
            let name = merging.renaming.apply(&format!("{module}.weight"));
            if let Some(part) = FusedPart::find(catalog, &name) {
                let modules = fused.entry(part.name.clone()).or_default();
                modules.push(SingleExpert {
                    module,
                    factors,
                    part,
                });
                continue;
            }
            changes.extend(self::changes(&merging, catalog, &model, module, factors)?);
        }
        let mut report = AdapterReport {
            path: self.adapter.directory.clone(),
            weight: self.weight,
            merged: contents.tokens.len(),
            replaced: contents.replacements.len(),
            scalings: Vec::new(),
            asks_order: experts.asks_order,
        };
        for change in changes {
            report.merged += 1;
            report.scalings.push(f64::from(change.change.scale));
            carry_out(catalog, change);
        }
        for (name, modules) in fused {
            let merged = single_experts::merged(&merging, catalog, &model, &name, &modules)?;
            report.merged += 1;
            report
                .scalings
                .extend(merged.scales.into_iter().map(f64::from));
            catalog.tensors[name.as_str()] = merged.weight;
        }
        if let Some(name) = tied {
            tying::follow(catalog, &merging.renaming.apply(&name));
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
        let warnings = &mut catalog.report.warnings;
        warnings.extend(self.idle_patterns(&contents));
        if experts.is_assumed {
            warnings.push(self.assumed_order());
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
    catalog.tensors.contains_key(name)
        || expert_names::are_apart(catalog, name)
        || FusedPart::find(catalog, name).is_some()
}

impl Lora {
    /// Warns of settings for modules that the adapter does not have.
    fn idle_patterns(&self, contents: &Contents) -> Vec<Warning> {
        let settings = &self.adapter.settings;
        // PEFT calls a parameter by its own name, and a module by that of its own, without its weight.
        let path = |name: String| match name.strip_suffix(".weight") {
            Some(module) if settings.parameters_of(module).next().is_none() => module.to_owned(),
            _ => name,
        };
        let names = contents.adapted_names(settings).into_iter();
        let paths: Vec<String> = names.map(path).collect();
        let idle = settings.idle_patterns(&paths).into_iter();
        let idle = idle.filter(|(_, patterns)| !patterns.is_empty());
        let warning = |(key, patterns): (&str, Vec<&str>)| {
            let problem = format!(
                "{key} in its adapter_config.json has what matches no module that it changes: {}",
                listing(&patterns)
            );
            Warning::new(Code::NoMatch, problem).in_file(&self.adapter.directory)
        };
        idle.map(warning).collect()
    }

    fn assumed_order(&self) -> Warning {
        let traces = match self.adapter.settings.writer.is_unsloth {
            true => ", and it has traces of Unsloth",
            false => "",
        };
        let problem = format!(
            "its adapter_config.json does not say in which order lora_B has experts and ranks{traces}; it is read as PEFT has it, but Unsloth trained with the other order, of the same shape, until September 2026"
        );
        let other = ExpertOrder::ExpertMajor.name();
        Warning::new(Code::ExpertOrder, problem)
            .in_file(&self.adapter.directory)
            .with_hint(
                Hint::give_value(LORA_EXPERTS, ExpertOrder::RankMajor.name())
                    .to("confirm PEFT's order")
                    .or(Hint::give_value(LORA_EXPERTS, other).to("take Unsloth's")),
            )
    }
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
    let transposed = layer.is_transposed(catalog)?;
    let mut merges = vec![layer.change(transposed, rank, scale, is_weight)?];
    if let Some(bias) = &factors.bias {
        let name = merging.renaming.apply(&format!("{path}.bias"));
        merges.push(merging.bias(catalog, name, bias, scale)?);
    }
    Ok(merges)
}

//! The models of a merge as runs of layers: what `models`, `slices` and `modules` come to.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use crate::catalog::{Catalog, Config, Tensor};
use crate::error::{Code, Error, Place, Result};
use crate::ops::merge::definition::{Definition, Inputs, ModelId, Modules, Slice};
use crate::ops::merge::names;
use crate::ops::merge::parameters::Settings;
use crate::tensor::Name;
use crate::text::counted;

/// One model of a merge: a catalog of its own, and what the recipe calls it.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub catalog: Catalog,
}

impl Source {
    pub(super) fn tensors(&self) -> &IndexMap<Name, Tensor> {
        &self.catalog.tensors
    }

    pub(super) fn config(&self) -> Option<&Config> {
        self.catalog.config.as_ref()
    }

    /// A whole number of the config, in `text_config` for multimodal models.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.config()?.text_model(key)?.as_u64()
    }

    /// One more than the largest `N` of the names `prefix.N.`.
    fn named_layers(&self, prefix: &str) -> u64 {
        let numbers = self.tensors().keys().filter_map(|name| names::layer(name));
        let numbers = numbers.filter(|(other, ..)| *other == prefix);
        numbers
            .map(|(_, layer, _)| layer.saturating_add(1))
            .max()
            .unwrap_or(0)
    }

    /// The number of layers named `prefix.N.`: those that config.json declares, or else all.
    /// Layers behind them predict further tokens and belong to no stack.
    pub(super) fn layers(&self, prefix: &str, only_prefix: bool) -> u64 {
        let named = self.named_layers(prefix);
        const KEYS: [&str; 4] = ["num_hidden_layers", "n_layer", "num_layers", "n_layers"];
        let Some(declared) = KEYS.iter().find_map(|key| self.number(key)) else {
            return named;
        };
        let predictors = self.number("num_nextn_predict_layers").unwrap_or(0);
        let rest = named.saturating_sub(declared);
        if only_prefix || (named > 0 && rest > 0 && rest <= predictors) {
            declared
        } else {
            named
        }
    }
}

/// A run of output layers, or of none, with what stands before and behind.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub sources: Vec<RunSource<'a>>,
    pub layers: u64,
    pub base: Option<ModelId>,
    pub settings: Option<&'a Settings>,
    pub place: Place,
}

#[derive(Debug)]
pub(super) struct RunSource<'a> {
    pub model: ModelId,
    /// The layer that gives the first of the run.
    pub first: u64,
    /// Those of the model itself; none if it is a base model that is not listed.
    pub settings: Option<&'a Settings>,
    /// Where it is named.
    pub place: &'a Place,
}

impl Run<'_> {
    pub(super) fn models(&self) -> Vec<ModelId> {
        self.sources.iter().map(|source| source.model).collect()
    }
}

/// A module of the output.
#[derive(Debug)]
pub(super) struct Stack<'a> {
    /// The prefix of its layers, if it has some.
    pub prefix: Option<String>,
    /// Whether the tensors outside of layers belong to it.
    pub holds_loose: bool,
    /// At least one.
    pub runs: Vec<Run<'a>>,
    pub settings: Option<&'a Settings>,
    /// Whether the layers are those of the models, one for one.
    pub whole: bool,
}

/// The modules of the merge, checked against what the method needs.
pub(super) fn stacks<'a>(definition: &'a Definition, sources: &[Source]) -> Result<Vec<Stack<'a>>> {
    let names = sources.iter().flat_map(|source| source.tensors().keys());
    let prefixes: BTreeSet<&str> = names.filter_map(|n| Some(names::layer(n)?.0)).collect();
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    if prefixes.len() > 1 {
        let modules = prefixes.iter().map(|prefix| (*prefix).to_owned());
        known.extend(modules.map(|prefix| (prefix.clone(), Some(prefix))));
    }
    let only = (prefixes.len() == 1).then(|| prefixes.first().map(|prefix| (*prefix).to_owned()));
    known.insert(DEFAULT.to_owned(), only.flatten());

    let builder = Builder {
        definition,
        sources,
        several: prefixes.len() > 1,
    };
    let mut stacks = Vec::new();
    match &definition.modules {
        Modules::All(inputs) => {
            if let Inputs::Slices(slices) = inputs
                && known.len() > 1
                && let Some(slice) = slices.first()
            {
                return Err(slice.place.error(Code::MergeLayers, format!(
                    "the layers of these models have several prefixes; list the slices of each under modules: {}",
                    listed(known.keys())
                )));
            }
            for (name, prefix) in &known {
                stacks.push(builder.stack(name, prefix.clone(), inputs, None)?);
            }
        }
        Modules::Named(modules) => {
            for module in modules {
                let Some(prefix) = known.get(&module.name) else {
                    return Err(module.place.error(
                        Code::MergeLayers,
                        format!(
                            "there is no module {:?} in these models; there is {}",
                            module.name,
                            listed(known.keys())
                        ),
                    ));
                };
                let settings = Some(&module.parameters);
                stacks.push(builder.stack(
                    &module.name,
                    prefix.clone(),
                    &module.inputs,
                    settings,
                )?);
            }
            let said = |name: &&String| !modules.iter().any(|module| module.name == **name);
            if let Some(name) = known.keys().find(said) {
                return Err(definition.place.error(Code::MergeLayers, format!(
                    "modules says nothing about {name:?}, whose tensors would be lost; these models have {}",
                    listed(known.keys())
                )));
            }
        }
    }
    Ok(stacks)
}

/// The most layers of a model.
const MOST_LAYERS: u64 = 1 << 16;

/// The module of all tensors outside of layers; with a single prefix, of all tensors.
const DEFAULT: &str = "default";

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

struct Builder<'a, 'b> {
    definition: &'a Definition,
    sources: &'b [Source],
    several: bool,
}

impl<'a> Builder<'a, '_> {
    fn stack(
        &self,
        name: &str,
        prefix: Option<String>,
        inputs: &'a Inputs,
        settings: Option<&'a Settings>,
    ) -> Result<Stack<'a>> {
        let (runs, whole) = match inputs {
            Inputs::Models(_) => (vec![self.whole(name, prefix.as_deref(), inputs)?], true),
            Inputs::Slices(slices) => {
                let runs = slices
                    .iter()
                    .map(|slice| self.run(slice, prefix.as_deref()));
                (runs.collect::<Result<Vec<_>>>()?, false)
            }
        };
        for run in &runs {
            let method = self.definition.method.spec();
            method
                .check(&run.models(), run.base)
                .map_err(|problem| run.place.error(Code::MergeModels, problem))?;
        }
        Ok(Stack {
            holds_loose: name == DEFAULT,
            prefix,
            runs,
            settings,
            whole,
        })
    }

    /// The number of layers of a model, all of which its tensors name.
    fn layers(&self, model: ModelId, prefix: Option<&str>) -> Result<u64> {
        let Some(prefix) = prefix else {
            return Ok(0);
        };
        let source = &self.sources[model];
        let (layers, named) = (
            source.layers(prefix, !self.several),
            source.named_layers(prefix),
        );
        let (code, problem) = if layers > named {
            let problem =
                format!("it has {layers} layers by its config.json, but its tensors name {named}");
            (Code::ConfigMismatch, problem)
        } else if layers > MOST_LAYERS {
            let problem =
                format!("its tensors number {layers} layers; at most {MOST_LAYERS} are merged");
            (Code::OverLimit, problem)
        } else {
            return Ok(layers);
        };
        let path = &source.catalog.report.sources[0].path;
        Err(Error::of_file(code, path, problem))
    }

    /// Whole models; the base takes part even if it is not among them.
    fn whole(&self, module: &str, prefix: Option<&str>, inputs: &'a Inputs) -> Result<Run<'a>> {
        let Inputs::Models(models) = inputs else {
            unreachable!("the caller looked");
        };
        let base = self.definition.base;
        let mut sources: Vec<RunSource> = models
            .iter()
            .map(|input| RunSource {
                model: input.model,
                first: 0,
                settings: Some(&input.parameters),
                place: &input.place,
            })
            .collect();
        if let Some(base) = base
            && !sources.iter().any(|source| source.model == base)
        {
            sources.push(RunSource {
                model: base,
                first: 0,
                settings: None,
                place: &self.definition.models[base].place,
            });
        }
        let layers = self.layers(sources[0].model, prefix)?;
        for other in &sources {
            let others = self.layers(other.model, prefix)?;
            if others != layers {
                return Err(models[0].place.error(Code::MergeLayers, format!(
                    "{} has {layers} layers and {} has {others} (module {module}); models with different numbers of layers can only be merged as slices",
                    self.sources[sources[0].model].name,
                    self.sources[other.model].name,
                )));
            }
        }
        Ok(Run {
            sources,
            layers,
            base,
            settings: None,
            place: models[0].place.clone(),
        })
    }

    fn run(&self, slice: &'a Slice, prefix: Option<&str>) -> Result<Run<'a>> {
        let length = |(start, end): (u64, u64)| end - start;
        let layers = length(slice.inputs[0].layers);
        for input in &slice.inputs {
            if length(input.layers) != layers {
                return Err(input.place.error(Code::MergeLayers, format!(
                    "this source has {} and the first of the slice has {}; all must have equally many",
                    counted(length(input.layers) as usize, "layer"),
                    counted(layers as usize, "layer")
                )));
            }
            let source = &self.sources[input.model];
            let has = self.layers(input.model, prefix)?;
            if input.layers.1 > has {
                return Err(input.place.error(
                    Code::MergeLayers,
                    format!(
                        "layer_range ends at {}, but {} has {has} layers",
                        input.layers.1, source.name
                    ),
                ));
            }
        }
        let sources = slice.inputs.iter().map(|input| RunSource {
            model: input.model,
            first: input.layers.0,
            settings: Some(&input.parameters),
            place: &input.place,
        });
        Ok(Run {
            sources: sources.collect(),
            layers,
            base: slice.base.or(self.definition.base),
            settings: Some(&slice.parameters),
            place: slice.place.clone(),
        })
    }
}

/// An error about a tensor of a source.
pub(super) fn tensor_error(
    code: Code,
    tensor: &Tensor,
    name: &str,
    problem: impl Into<String>,
) -> Error {
    Error::of_tensor(code, tensor.origin(), name, problem)
}

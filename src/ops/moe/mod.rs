//! Mixtures of experts made of dense models: attention, norms, embedding and head of the base, and the MLPs of
//! each expert. Almost all of it is ranges of the models' files.
//!
//! | file | does |
//! |---|---|
//! | `definition` | what a recipe says |
//! | `architecture` | names and config of each architecture |
//! | `gates` | routers that are computed |
//! | `tensors` | the tensors of the mixture, made of those of the models |

mod architecture;
mod definition;
mod gates;
mod tensors;

pub use definition::{Expert, Gates, MoeDefinition, Prompts};

use indexmap::IndexMap;

use crate::catalog::{Catalog, MergeReport, Role, StretchReport};
use crate::error::{Code, Result, Warning};
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::ops::merge::{Source, layer, select_files, set_dtype};
use crate::ops::moe::architecture::Architecture;
use crate::ops::moe::tensors::{Builder, EMBEDDING, LAYERS};

/// A mixture of experts and its models, in the order of [`MoeDefinition::models`].
#[derive(Debug)]
pub struct Moe {
    pub definition: MoeDefinition,
    pub sources: Vec<Source>,
}

impl Moe {
    /// The mixture.
    ///
    /// # Errors
    /// If these models cannot be mixed so; the message names the place in the recipe or the tensor.
    pub fn catalog(mut self) -> Result<Catalog> {
        for source in &mut self.sources {
            source.catalog.config_mut()?;
        }
        let model_type = self.model_type()?;
        let definition = &self.definition;
        let architecture = Architecture::choose(definition, &model_type).map_err(|problem| {
            let place = definition.architecture.as_ref();
            let place = place.map_or(&definition.place, |(_, place)| place);
            place.error(Code::MergeModels, problem)
        })?;
        let builder = Builder {
            definition,
            sources: &self.sources,
            architecture,
            precision: self.precision()?,
            layers: self.layers()?,
        };
        let tensors = builder.tensors()?;
        let base = &self.sources[definition.base].catalog;
        let mut catalog = Catalog {
            tensors,
            homes: Vec::new(),
            sources: Default::default(),
            aux: base.aux.clone(),
            attributes: base.attributes,
            config: base.config.clone(),
            report: Default::default(),
        };
        select_files(&mut catalog, None);
        if let Some(config) = catalog.config_mut()? {
            architecture.describe(config, &model_type, definition);
            set_dtype(config, builder.precision.dtype());
        }
        for source in &self.sources {
            catalog.sources.merge(&source.catalog.sources);
        }
        self.report(&mut catalog, architecture, builder.precision);
        Ok(catalog)
    }

    /// The type of all models.
    fn model_type(&self) -> Result<String> {
        let type_of = |model: usize| -> Result<String> {
            let source = &self.sources[model];
            let config = source.catalog.config.as_ref();
            let found = config.and_then(|config| config.get("model_type"));
            let found = found.and_then(|found| found.as_str().map(str::to_owned));
            found.ok_or_else(|| {
                let place = &self.definition.models[model].place;
                let problem = format!(
                    "{} has no config.json that names its model_type",
                    source.name
                );
                place.error(Code::BadConfig, problem)
            })
        };
        let of_base = type_of(self.definition.base)?;
        for model in self.definition.mixed_models() {
            let other = type_of(model)?;
            if other != of_base {
                let problem = format!(
                    "{} is a model of the type {other}, and the base is {of_base}; experts must be of the base's type",
                    self.sources[model].name
                );
                let place = &self.definition.models[model].place;
                return Err(place.error(Code::MergeModels, problem));
            }
        }
        Ok(of_base)
    }

    /// The dtype of the result.
    fn precision(&self) -> Result<Precision> {
        let base = &self.sources[self.definition.base];
        let config = base.catalog.config.as_ref();
        let declared = ["dtype", "torch_dtype"].iter().find_map(|key| {
            let value = config?.get(key)?;
            Precision::named(value.as_str()?)
        });
        let stored = base.catalog.tensors.get(EMBEDDING);
        let stored = stored.and_then(|tensor| Precision::from_dtype(tensor.dtype));
        let asked = self.definition.dtype.and_then(Precision::from_dtype);
        asked.or(declared).or(stored).ok_or_else(|| {
            let problem = "there is no dtype in the recipe, nor in the base's config.json";
            self.definition.place.error(Code::MissingParameter, problem)
        })
    }

    /// The number of layers, of which all models have equally many.
    fn layers(&self) -> Result<u64> {
        let count = |model: usize| {
            let names = self.sources[model].catalog.tensors.keys();
            let layers = names.filter_map(|name| layer(name));
            let layers = layers.filter(|(prefix, ..)| *prefix == LAYERS);
            layers
                .map(|(_, layer, _)| layer.saturating_add(1))
                .max()
                .unwrap_or(0)
        };
        const MOST_LAYERS: u64 = 1 << 16;
        let layers = count(self.definition.base);
        for model in self.definition.mixed_models() {
            let place = &self.definition.models[model].place;
            let (name, has) = (&self.sources[model].name, count(model));
            if has != layers || has == 0 {
                let problem = format!(
                    "{name} has {has} layers named {LAYERS}.N, and the base has {layers}; experts must have as many"
                );
                return Err(place.error(Code::MergeLayers, problem));
            }
            let declared = self.sources[model].catalog.config.as_ref();
            let declared = declared.and_then(|config| config.get("num_hidden_layers")?.as_u64());
            if declared.is_some_and(|declared| declared != has) || has > MOST_LAYERS {
                let problem = format!(
                    "{name} has {has} layers, but by its config.json {declared:?}; at most {MOST_LAYERS} are mixed"
                );
                return Err(place.error(Code::ConfigMismatch, problem));
            }
        }
        Ok(layers)
    }

    fn report(&self, catalog: &mut Catalog, architecture: &Architecture, precision: Precision) {
        let definition = &self.definition;
        let name = |model: usize| self.sources[model].name.clone();
        let report = &mut catalog.report;
        for source in &self.sources {
            for own in &source.catalog.report.sources {
                let mut own = own.clone();
                own.role = match own.role {
                    Role::Base => Role::Model,
                    other => other,
                };
                report.sources.push(own);
            }
            report
                .warnings
                .extend(source.catalog.report.warnings.iter().cloned());
            report
                .notes
                .extend(source.catalog.report.notes.iter().cloned());
        }
        let mut stretches: IndexMap<(String, String), (usize, bool)> = IndexMap::new();
        for (tensor, content) in &catalog.tensors {
            let of_layer = layer(tensor).map(|(_, _, rest)| rest);
            let of_block = of_layer.and_then(|rest| rest.strip_prefix(architecture.block));
            let expert = |rest: &str| -> Option<usize> {
                rest.strip_prefix(".experts.")?
                    .split('.')
                    .next()?
                    .parse()
                    .ok()
            };
            let (what, from) = match of_block {
                None => (
                    "all but experts and routers".to_owned(),
                    name(definition.base),
                ),
                Some(rest) => match expert(rest) {
                    Some(number) => {
                        let model = definition.experts[number].model;
                        (format!("expert {number}"), name(model))
                    }
                    None if rest.contains("gate.weight") => {
                        let from = match definition.gates {
                            Gates::File(file) => name(file),
                            Gates::CheapEmbed => format!("prompts, by {}", name(definition.base)),
                            Gates::Random | Gates::UniformRandom => "random numbers".to_owned(),
                        };
                        ("routers".to_owned(), from)
                    }
                    None => {
                        let shared = definition.shared.as_ref();
                        let model = shared.map_or(definition.base, |shared| shared.model);
                        ("shared expert".to_owned(), name(model))
                    }
                },
            };
            let entry = stretches.entry((what, from)).or_insert((0, true));
            entry.0 += 1;
            entry.1 &= content.is_stored();
        }
        if !definition.experts.len().is_power_of_two() {
            report.notes.push(format!(
                "llama.cpp wants a power of two of experts, and there are {}",
                definition.experts.len()
            ));
        }
        let first = definition.experts[0].model;
        let are_alike = definition
            .experts
            .iter()
            .all(|expert| expert.model == first);
        if are_alike && definition.experts.len() > 1 {
            report.warnings.push(Warning::new(
                Code::NoEffect,
                "all experts are the same model: the mixture gives what it gives, and is good for training only",
            ));
        }
        let dtype = Some(precision.torch_name().to_owned());
        report.merge = Some(MergeReport {
            method: format!("moe ({})", architecture.name),
            models: self
                .sources
                .iter()
                .map(|source| source.name.clone())
                .collect(),
            base: Some(name(definition.base)),
            files_of: name(definition.base),
            dtype: dtype.clone(),
            out_dtype: dtype,
            stretches: stretches
                .into_iter()
                .map(|((what, from), (tensors, stored))| StretchReport {
                    what,
                    from: vec![from],
                    stored,
                    tensors,
                })
                .collect(),
        });
    }
}

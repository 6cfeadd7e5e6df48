//! From runs of layers to output tensors: which input tensors each has, with which parameters.

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::ops::merge::buffers;
use crate::ops::merge::cast;
use crate::ops::merge::definition::{Definition, ModelId};
use crate::ops::merge::inputs::{Run, RunSource, Source, Stack};
use crate::ops::merge::method::{Group, Input, Missing};
use crate::ops::merge::names;
use crate::ops::merge::no_value::{Model, NoValue};
use crate::ops::merge::parameters::{Preset, Scope, Settings, Values};
use crate::ops::merge::vocabulary::Rows;
use crate::quant::is_coded;
use crate::tensor::{Name, shape_text};

/// The tensors of a merge, and what there is to say about them.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// In the order before the layers, layers, behind the layers.
    pub tensors: IndexMap<Name, Tensor>,
    /// Of which stretch the output is made how: tensors for each.
    pub stretches: IndexMap<Stretch, usize>,
    /// Tensors that some inputs lack.
    pub incomplete: Vec<String>,
    /// Those of them that the output lacks as well.
    pub skipped: Vec<String>,
    /// Tensors of layers behind the stacks that slices leave out.
    pub left_out: Vec<String>,
}

/// A stretch of the output and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stretch {
    /// "layers 0-15", for example.
    pub what: String,
    pub from: Vec<String>,
    /// Whether all bytes are those of source files.
    pub stored: bool,
}

pub(super) struct Planner<'a> {
    pub definition: &'a Definition,
    pub sources: &'a [Source],
    pub rows: &'a Rows,
    /// By model, prefix and layer: the names behind the layer number.
    by_layer: Vec<HashMap<(&'a str, u64), Vec<&'a str>>>,
    planned: Planned,
}

/// The most tensors of a merge: layers can be repeated without end.
const MOST_TENSORS: usize = 1 << 21;

/// The part of a run that one output tensor belongs to.
struct Position<'a, 'b> {
    run: &'b Run<'a>,
    module: Option<&'a Settings>,
    t: f64,
    what: &'b str,
    from: &'b [String],
}

impl<'a> Planner<'a> {
    pub(super) fn new(definition: &'a Definition, sources: &'a [Source], rows: &'a Rows) -> Self {
        let by_layer = sources.iter().map(|source| {
            let mut layers: HashMap<(&str, u64), Vec<&str>> = HashMap::new();
            for name in source.tensors().keys() {
                if let Some((prefix, layer, rest)) = names::layer(name) {
                    layers.entry((prefix, layer)).or_default().push(rest);
                }
            }
            layers
        });
        Planner {
            definition,
            sources,
            rows,
            by_layer: by_layer.collect(),
            planned: Planned::default(),
        }
    }

    pub(super) fn plan(mut self, stacks: &[Stack<'a>]) -> Result<Planned> {
        for stack in stacks {
            self.stack(stack)?;
        }
        Ok(self.planned)
    }

    fn stack(&mut self, stack: &Stack<'a>) -> Result<()> {
        let (first, last) = (&stack.runs[0], &stack.runs[stack.runs.len() - 1]);
        if stack.holds_loose {
            self.loose(stack, first, "before the layers", |name| {
                names::layer(name).is_none() && !names::is_behind_layers(name)
            })?;
        }
        if let Some(prefix) = &stack.prefix {
            let mut start = 0;
            for run in &stack.runs {
                self.run(stack, run, prefix, start)?;
                start += run.layers;
            }
            self.surplus_layers(stack, prefix)?;
        }
        if stack.holds_loose {
            self.loose(stack, last, "behind the layers", |name| {
                names::layer(name).is_none() && names::is_behind_layers(name)
            })?;
        }
        Ok(())
    }

    fn run(&mut self, stack: &Stack<'a>, run: &Run<'a>, prefix: &str, start: u64) -> Result<()> {
        let range = |first: u64| format!("{first}-{}", first + run.layers.saturating_sub(1));
        let from = run.sources.iter();
        let from: Vec<String> = from
            .map(|source| {
                if stack.whole {
                    self.sources[source.model].name.clone()
                } else {
                    let name = &self.sources[source.model].name;
                    format!("{name} layers {}", range(source.first))
                }
            })
            .collect();
        let what = if stack.holds_loose {
            format!("layers {}", range(start))
        } else {
            format!("{prefix} layers {}", range(start))
        };
        for offset in 0..run.layers {
            let position = Position {
                run,
                module: stack.settings,
                // A slice of one layer is at the end of its gradients.
                t: match run.layers {
                    1 => 1.0,
                    layers => offset as f64 / (layers - 1) as f64,
                },
                what: &what,
                from: &from,
            };
            let mut rests: IndexSet<&str> = IndexSet::new();
            for source in self.donor_first(run) {
                let key = (prefix, source.first + offset);
                rests.extend(self.by_layer[source.model].get(&key).into_iter().flatten());
            }
            for rest in rests {
                let output = names::in_layer(prefix, start + offset, rest);
                let inputs = run.sources.iter();
                let inputs: Vec<String> = inputs
                    .map(|source| names::in_layer(prefix, source.first + offset, rest))
                    .collect();
                self.tensor(&position, &output, &inputs)?;
            }
        }
        Ok(())
    }

    /// The tensors that `wanted` says, of any model of `run`, under their own names.
    fn loose(
        &mut self,
        stack: &Stack<'a>,
        run: &Run<'a>,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let from = run
            .sources
            .iter()
            .map(|source| self.sources[source.model].name.clone());
        let from: Vec<String> = from.collect();
        let position = Position {
            run,
            module: stack.settings,
            t: 0.0,
            what,
            from: &from,
        };
        let mut found: IndexSet<&str> = IndexSet::new();
        for source in self.donor_first(run) {
            let names = self.sources[source.model].tensors().keys();
            found.extend(names.map(|name| &**name).filter(|name| wanted(name)));
        }
        for name in found {
            let inputs = vec![name.to_owned(); run.sources.len()];
            self.tensor(&position, name, &inputs)?;
        }
        Ok(())
    }

    /// Layers behind the stack: whole models keep them, slices have no place for them.
    fn surplus_layers(&mut self, stack: &Stack<'a>, prefix: &str) -> Result<()> {
        if stack.whole {
            let run = &stack.runs[0];
            return self.loose(stack, run, "behind the layers", |name| {
                let layer = names::layer(name);
                layer.is_some_and(|(other, n, _)| other == prefix && n >= run.layers)
            });
        }
        let models: IndexSet<ModelId> = stack.runs.iter().flat_map(Run::models).collect();
        for model in models {
            let has = self.sources[model].layers(prefix, stack.holds_loose);
            let names = self.sources[model].tensors().keys().filter(|name| {
                names::layer(name).is_some_and(|(other, n, _)| other == prefix && n >= has)
            });
            let left_out: Vec<String> = names.map(|name| name.to_string()).collect();
            self.planned.left_out.extend(left_out);
        }
        Ok(())
    }

    /// The sources of a run, the donor first: its order of names is the output's.
    fn donor_first<'r>(&self, run: &'r Run<'a>) -> Vec<&'r RunSource<'a>> {
        let donor = self.definition.donor();
        let mut sources: Vec<&RunSource> = run.sources.iter().collect();
        sources.sort_by_key(|source| source.model != donor);
        sources
    }

    /// Plans one output tensor; `names` are those of its inputs, one for each source of the run.
    fn tensor(&mut self, at: &Position<'a, '_>, output: &str, names: &[String]) -> Result<()> {
        let spec = self.definition.method.spec();
        let mut present: Vec<(usize, Tensor)> = Vec::new();
        for (i, (source, name)) in at.run.sources.iter().zip(names).enumerate() {
            let tensors = self.sources[source.model].tensors();
            let tied = names::tied_to(name)
                .iter()
                .find_map(|name| tensors.get(*name));
            let found = tensors.get(&**name).or(tied);
            present.extend(found.map(|tensor| (i, tensor.clone())));
        }
        let missing = present.len() < names.len();
        if missing {
            self.planned.incomplete.push(output.to_owned());
        }
        let models: Vec<ModelId> = present
            .iter()
            .map(|(i, _)| at.run.sources[*i].model)
            .collect();
        let single_base = models.len() == 1 && at.run.base == Some(models[0]);
        let passes = missing
            && match spec.missing {
                Missing::Merge => false,
                Missing::PassSingle => models.len() == 1,
                Missing::PassBase => single_base,
                Missing::BaseOrSkip => single_base && spec.inputs.0 > 1,
            };
        if missing && !passes && spec.missing == Missing::BaseOrSkip && models.len() < spec.inputs.0
        {
            self.planned.skipped.push(output.to_owned());
            return Ok(());
        }
        if !passes {
            spec.check(&models, at.run.base).map_err(|problem| {
                self.error(
                    Code::MergeModels,
                    output,
                    format!("{problem} (not every model has this tensor)"),
                )
            })?;
        }
        let tensor = match buffers::agreed(output, &present)? {
            Some(buffer) => buffer,
            None => self.merged(at, output, names, present, passes)?,
        };
        *self
            .planned
            .stretches
            .entry(Stretch {
                what: at.what.to_owned(),
                from: at.from.to_vec(),
                stored: tensor.is_stored(),
            })
            .or_default() += 1;
        if self.planned.tensors.len() == MOST_TENSORS {
            return Err(self.error(
                Code::OverLimit,
                output,
                format!("it is one more than the {MOST_TENSORS} tensors that a merge may have"),
            ));
        }
        if self.planned.tensors.contains_key(output) {
            return Err(self.error(Code::MergeLayers, output, "two modules have it"));
        }
        self.planned.tensors.insert(output.into(), tensor);
        Ok(())
    }

    fn merged(
        &self,
        at: &Position<'a, '_>,
        output: &str,
        names: &[String],
        mut present: Vec<(usize, Tensor)>,
        passes: bool,
    ) -> Result<Tensor> {
        if let Some((_, tensor)) = present.iter().find(|(_, tensor)| is_coded(tensor.dtype)) {
            return Err(Error::of_tensor(
                Code::UnsupportedTensor,
                tensor.origin(),
                output,
                format!("it is {}, which cannot be merged", tensor.dtype),
            ));
        }
        let model = |i: usize| at.run.sources[i].model;
        if names::is_vocabulary(output) {
            let models: Vec<ModelId> = present.iter().map(|(i, _)| model(*i)).collect();
            let tensors = present.iter().map(|(_, tensor)| tensor);
            let aligned = self
                .rows
                .align(output, &models, at.run.base, tensors.collect())?;
            for ((_, tensor), aligned) in present.iter_mut().zip(aligned) {
                *tensor = aligned;
            }
        }
        self.check_shapes(at, output, &present)?;
        let dtypes = present.iter().map(|(_, tensor)| tensor.dtype);
        let promoted = dtypes.reduce(cast::promote).expect("at least one input");
        let working = self.definition.dtype.unwrap_or(promoted);
        let spec = self.definition.method.spec();
        let resolve = |scope: Scope, source: Option<&RunSource<'a>>, name: &str| {
            let settings = [
                source.and_then(|source| source.settings),
                at.run.settings,
                at.module,
                Some(&self.definition.parameters),
            ];
            let settings = || settings.into_iter().flatten();
            let parameters = spec.parameters.iter().filter(|p| p.scope == scope);
            parameters
                .map(|parameter| {
                    let value = parameter.resolve(settings(), name, at.t)?;
                    if value.is_some() || parameter.preset != Preset::Required {
                        return Ok((parameter.name, value));
                    }
                    let no_value = NoValue {
                        parameter,
                        spec,
                        tensor: name,
                        model: source.map(|source| Model {
                            name: &self.sources[source.model].name,
                            is_unlisted_base: source.settings.is_none(),
                        }),
                        place: source.map_or(&at.run.place, |source| source.place),
                        settings: settings().collect(),
                    };
                    Err(no_value.error())
                })
                .collect::<Result<Vec<_>>>()
        };
        let mut inputs = Vec::with_capacity(present.len());
        for (i, tensor) in present {
            let source = &at.run.sources[i];
            let is_base = at.run.base == Some(source.model);
            let mut values = Vec::new();
            if !passes {
                values = resolve(Scope::Input, Some(source), &names[i])?;
                if !is_base {
                    values.extend(resolve(Scope::NonBase, Some(source), &names[i])?);
                }
            }
            inputs.push(Input {
                model: source.model,
                tensor,
                is_base,
                parameters: values.into_iter().collect(),
            });
        }
        let parameters: Values = if passes {
            Values::default()
        } else {
            resolve(Scope::Shared, None, output)?.into_iter().collect()
        };
        let group = Group {
            name: output,
            inputs,
            parameters,
            working,
            out: self.definition.out_dtype.unwrap_or(working),
            seed: self.definition.seed,
        };
        if passes {
            cast::through(&group, &group.inputs[0].tensor)
        } else {
            let method = self.definition.method;
            let checked = method.check(&group);
            checked.map_err(|problem| self.error(Code::BadParameter, output, problem))?;
            method.merge(&group)
        }
    }

    fn check_shapes(
        &self,
        at: &Position<'a, '_>,
        output: &str,
        present: &[(usize, Tensor)],
    ) -> Result<()> {
        let (_, first) = &present[0];
        if present
            .iter()
            .all(|(_, tensor)| tensor.shape == first.shape)
        {
            return Ok(());
        }
        let shapes: Vec<String> = present
            .iter()
            .map(|(i, tensor)| {
                let name = &self.sources[at.run.sources[*i].model].name;
                format!("{} in {name}", shape_text(&tensor.shape))
            })
            .collect();
        let problem = format!("its shapes differ: {}", shapes.join(", "));
        let error = self.error(Code::MergeUnlike, output, problem);
        if names::is_vocabulary(output) {
            Err(error.with_hint(
                "set tokenizer_source to the model whose tokens the result should have, or, if all models number their common tokens alike, truncate_embeddings under view",
            ))
        } else {
            Err(error)
        }
    }

    fn error(&self, code: Code, tensor: &str, problem: impl Into<String>) -> Error {
        let error = self.definition.place.error(code, problem);
        error.about_tensor(tensor)
    }
}

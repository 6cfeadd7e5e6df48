//! LoRA: PEFT adapters merged into the weights, as PEFT's `merge_and_unload` writes them.
//!
//! `W + s · B·A` with `s = α/r` (or `α/√r`) for linear layers; its transpose where the weight is
//! stored transposed (embeddings, Conv1D); scaled row by row to trained lengths with DoRA. What an
//! adapter holds besides factors (`modules_to_save`, trained biases) takes the base's place. The
//! numbers are defined in [`crate::kernels::low_rank`].

use std::path::Path;

use crate::catalog::{AdapterReport, Catalog, Tensor};
use crate::error::{Error, Result};
use crate::kernels::low_rank::{PANEL, Strided};
use crate::ops::experts_model::Model;
use crate::ops::lora_adapter::Adapter;
use crate::ops::lora_embeddings as embeddings;
use crate::ops::lora_experts;
use crate::ops::lora_factors;
use crate::ops::lora_kernels::{self as kernels, Join, LowRank, Matrix};
use crate::ops::lora_layers::Layer;
use crate::ops::lora_targets::{Contents, Factors, Renaming, close_names, unwrapped};
use crate::ops::{Operator, Precision, cast};
use crate::quant;
use crate::shown::Show;
use crate::tensor::{Name, shape_text};

/// The most columns of a weight that an adapter is merged into. A row of so many takes 4 MiB as F32.
const MOST_COLUMNS: u64 = 1 << 20;
/// The most bytes of a factor as F32, which are kept in memory while its tensor is read.
const MOST_FACTOR_BYTES: u64 = 512 << 20;
/// Modules of an adapter times patterns that give them ranks.
const MOST_MATCHES: usize = 1 << 28;

/// Merges an adapter into a catalog.
#[derive(Debug)]
pub struct Lora {
    adapter: Adapter,
    weight: f64,
}

/// A weight and what is merged into it.
pub(super) struct Merge {
    pub name: Name,
    pub matrix: Matrix,
    pub change: LowRank,
}

impl Lora {
    /// The adapter in `directory`, its scaling multiplied by `weight`.
    ///
    /// # Errors
    /// If it is not a LoRA adapter of PEFT that can be merged.
    pub fn open(directory: &Path, weight: f64) -> Result<Self> {
        if !weight.is_finite() {
            return Err(Error::Request(format!(
                "the weight of the adapter {} is {weight}, but must be finite",
                directory.shown()
            )));
        }
        Ok(Lora {
            adapter: Adapter::open(directory)?,
            weight,
        })
    }
}

impl Operator for Lora {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let contents = Contents::of(&self.adapter)?;
        if contents
            .modules
            .len()
            .saturating_mul(self.adapter.settings.patterns())
            > MOST_MATCHES
        {
            return Err(Error::checkpoint(
                &self.adapter.directory,
                "it has too many modules for so many rank and alpha patterns",
            ));
        }
        let merging = Merging {
            adapter: &self.adapter,
            weight: self.weight,
            renaming: self.renaming(catalog, &contents),
        };
        let changed = merging.changed_names(&contents);
        embeddings::check_tied(catalog, &self.adapter, changed.iter().map(String::as_str))?;

        let mut resized = false;
        for (name, key) in &contents.replacements {
            resized |= merging.replace(catalog, name, key)?;
        }
        let model = Model::of(catalog).unwrap_or_default();
        let mut merges = Vec::new();
        for (module, factors) in &contents.modules {
            merges.extend(merging.merges(catalog, &model, module, factors)?);
        }
        let mut report = AdapterReport {
            path: self.adapter.directory.clone(),
            weight: self.weight,
            merged: 0,
            replaced: contents.replacements.len(),
            scalings: Vec::new(),
        };
        for merge in merges {
            report.merged += 1;
            report.scalings.push(f64::from(merge.change.scale));
            carry_out(catalog, merge);
        }
        report.scalings.sort_by(f64::total_cmp);
        report.scalings.dedup();
        if report.merged + report.replaced == 0 {
            let directory = self.adapter.directory.shown();
            let warnings = &mut catalog.report.warnings;
            warnings.push(format!("the adapter {directory} has no tensors"));
        } else if self.weight == 0.0 && report.merged > 0 {
            let directory = self.adapter.directory.display();
            let warnings = &mut catalog.report.warnings;
            warnings.push(format!(
                "the adapter {directory} has no effect on what it is merged into: its weight is 0"
            ));
        }
        catalog.sources.add(&self.adapter.weights);
        catalog.report.adapters.push(report);
        match resized {
            true => embeddings::follow_vocabulary(catalog, &self.adapter),
            false => Ok(()),
        }
    }
}

impl Lora {
    /// The renaming under which every tensor of the adapter has its place; none if there is no such.
    fn renaming(&self, catalog: &Catalog, contents: &Contents) -> Renaming {
        let fits = |renaming: &Renaming| {
            let merging = Merging {
                adapter: &self.adapter,
                weight: self.weight,
                renaming: *renaming,
            };
            let names = merging.changed_names(contents);
            let has = |name: &String| catalog.tensors.contains_key(name.as_str());
            names.iter().all(has)
        };
        let all = Renaming::ALL.into_iter();
        all.into_iter().find(fits).unwrap_or(Renaming::None)
    }
}

fn carry_out(catalog: &mut Catalog, merge: Merge) {
    let Merge {
        name,
        matrix,
        change,
    } = merge;
    let weight = &mut catalog.tensors[&name];
    *weight = kernels::merged(&name, weight.clone(), matrix, change);
}

/// An adapter on its way into a catalog.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merging<'a> {
    pub adapter: &'a Adapter,
    pub weight: f64,
    pub renaming: Renaming,
}

impl Merging<'_> {
    /// The base's names of what the adapter changes, experts aside.
    fn changed_names(&self, contents: &Contents) -> Vec<String> {
        let weights = contents.modules.keys().filter_map(|module| {
            let (path, depth) = unwrapped(module);
            let is_parameter =
                depth > 0 || self.parameters(path).next().is_some_and(|p| p != "weight");
            (!is_parameter).then(|| self.renaming.apply(&format!("{path}.weight")))
        });
        let replaced = contents.replacements.iter();
        let replaced = replaced.map(|(name, _)| self.renaming.apply(name));
        weights.chain(replaced).collect()
    }

    /// The parameters of a module that are targeted by themselves, apart from its weight.
    pub(super) fn parameters<'b>(&'b self, module: &'b str) -> impl Iterator<Item = &'b str> {
        self.adapter.settings.parameters_of(module)
    }

    /// Puts the tensor `key` of the adapter where the base has `name`; says whether its shape is
    /// another one.
    fn replace(&self, catalog: &mut Catalog, name: &str, key: &str) -> Result<bool> {
        let name = self.renaming.apply(name);
        let base = self.target(catalog, &name, key)?;
        let (_, mut given) = Tensor::stored(key, &self.adapter.weights, base.home);
        embeddings::check_shape(self.adapter, key, &name, &given.shape, &base)?;
        let resized = given.shape != base.shape;
        if let Some(to) = Precision::of(base.dtype) {
            self.check_dtype(key, &given)?;
            given = cast(&name, &given, to)?;
        }
        catalog.tensors[name.as_str()] = given;
        Ok(resized)
    }

    /// The tensor of the base that `key` changes, one that can be computed with.
    pub(super) fn target(&self, catalog: &Catalog, name: &str, key: &str) -> Result<Tensor> {
        let Some(tensor) = catalog.tensors.get(name) else {
            return Err(self.adapter.error(
                key,
                format!(
                    "it belongs to {name}, which the base does not have{}",
                    close_names(catalog, name)
                ),
            ));
        };
        if lora_factors::is_float(tensor.dtype) {
            return Ok(tensor.clone());
        }
        let advice = match quant::is_coded(tensor.dtype) {
            true if quant::stored(&catalog.tensors, name).is_some() => {
                "give --dtype bf16 to dequantize the base first"
            }
            _ => "start from the checkpoint that is not quantized",
        };
        Err(Error::tensor(
            tensor.origin(),
            name,
            format!(
                "the adapter {} changes it, but its dtype is {}, and only BF16, F16 and F32 can be changed; {advice}",
                self.adapter.directory.shown(),
                tensor.dtype
            ),
        ))
    }

    fn check_dtype(&self, key: &str, tensor: &Tensor) -> Result<()> {
        match lora_factors::is_float(tensor.dtype) {
            true => Ok(()),
            false => Err(self.adapter.error(
                key,
                format!(
                    "its dtype is {}, but must be BF16, F16 or F32",
                    tensor.dtype
                ),
            )),
        }
    }

    /// A tensor of the adapter that is computed with.
    pub(super) fn stored(&self, key: &Name) -> Result<Tensor> {
        let (_, tensor) = Tensor::stored(key, &self.adapter.weights, None);
        self.check_dtype(key, &tensor)?;
        Ok(tensor)
    }

    /// Both factors of a module.
    pub(super) fn factors(&self, module: &str, factors: &Factors) -> Result<(Tensor, Tensor)> {
        let missing = |which: &str| {
            let problem = format!("{module} has no lora_{which} beside it");
            self.adapter.error(factors.any(), problem)
        };
        let a = factors.a.as_ref().ok_or_else(|| missing("A"))?;
        let b = factors.b.as_ref().ok_or_else(|| missing("B"))?;
        Ok((self.stored(a)?, self.stored(b)?))
    }

    /// What is merged for the factors of one module: its weight, and its bias if there is one.
    fn merges(
        &self,
        catalog: &Catalog,
        model: &Model,
        module: &str,
        factors: &Factors,
    ) -> Result<Vec<Merge>> {
        let (path, depth) = unwrapped(module);
        let parameters: Vec<&str> = self.parameters(path).collect();
        let is_weight = parameters == ["weight"];
        if depth > 0 || !(parameters.is_empty() || is_weight) {
            return lora_experts::merges(self, catalog, model, path, depth, factors);
        }
        let name = self.renaming.apply(&format!("{path}.weight"));
        let weight = self.target(catalog, &name, factors.any())?;
        if weight.len() == 0 {
            return Ok(Vec::new());
        }
        let (a, b) = self.factors(path, factors)?;
        let layer = Layer {
            merging: self,
            name: &name,
            weight: &weight,
            factors,
            a,
            b,
        };
        let pattern = match is_weight {
            true => format!("{path}.weight"),
            false => path.to_owned(),
        };
        let rank = layer.rank(&pattern)?;
        let scale = self.scale(&pattern, factors)?;
        let mut merges = vec![layer.merge(catalog, rank, scale, is_weight)?];
        if let Some(bias) = &factors.bias {
            let name = self.renaming.apply(&format!("{path}.bias"));
            merges.push(self.bias(catalog, name, bias, scale)?);
        }
        Ok(merges)
    }

    /// What the product is multiplied by.
    pub(super) fn scale(&self, path: &str, factors: &Factors) -> Result<f32> {
        let scale = self.adapter.settings.scaling(path, self.weight) as f32;
        match scale.is_finite() {
            true => Ok(scale),
            false => Err(self.adapter.error(
                factors.any(),
                "by rank, alpha and weight, its scaling is larger than any f32",
            )),
        }
    }

    /// `bias + s · given`.
    fn bias(&self, catalog: &Catalog, name: String, key: &Name, scale: f32) -> Result<Merge> {
        let bias = self.target(catalog, &name, key)?;
        let given = self.stored(key)?;
        if given.shape != bias.shape || bias.shape.len() != 1 {
            return Err(self.unfit(key, &given, &name, &bias));
        }
        let columns = bias.shape[0];
        let matrix = Matrix {
            groups: 1,
            rows: 1,
            columns,
            dtype: bias.dtype,
        };
        self.check_size(key, columns, panelled(columns))?;
        let strided = strided(1, 1, columns, [0, 0, 1]);
        Ok(Merge {
            change: LowRank {
                left: None,
                right: lora_factors::right(&name, given, strided),
                rank: 1,
                scale,
                first_row: 0,
                left_rows: 0,
                first_group: 0,
                join: Join::Add,
            },
            name: name.into(),
            matrix,
        })
    }

    /// Checks that rows and factors are not so large that they could not be held in memory.
    pub(super) fn check_size(&self, key: &Name, columns: u64, elements: u64) -> Result<()> {
        let refuse = |problem: String| Err(self.adapter.error(key, problem));
        if columns > MOST_COLUMNS {
            return refuse(format!(
                "it changes rows of {columns} elements; at most {MOST_COLUMNS} are supported"
            ));
        }
        if elements.saturating_mul(4) > MOST_FACTOR_BYTES {
            return refuse(format!(
                "as F32 it takes {} bytes; at most {MOST_FACTOR_BYTES} are supported, since all of them are kept in memory",
                elements.saturating_mul(4)
            ));
        }
        Ok(())
    }

    /// An error that names both shapes.
    pub(super) fn unfit(&self, key: &Name, tensor: &Tensor, name: &str, base: &Tensor) -> Error {
        self.adapter.error(
            key,
            format!(
                "its shape {} does not fit {name} of the base, whose shape is {}; was the adapter trained on another model?",
                shape_text(&tensor.shape),
                shape_text(&base.shape)
            ),
        )
    }
}

/// Columns of a right factor once they are in whole panels.
pub(super) fn panelled(columns: u64) -> u64 {
    columns.next_multiple_of(PANEL as u64)
}

/// What `[group, row, column]` strides see; the numbers are those of tensors that exist.
pub(super) fn strided(groups: u64, rows: u64, columns: u64, strides: [u64; 3]) -> Strided {
    Strided {
        groups: groups as usize,
        rows: rows as usize,
        columns: columns as usize,
        strides: strides.map(|stride| stride as usize),
    }
}

//! Merge: tensors of several models become one model, as a recipe says.
//!
//! | file | does |
//! |---|---|
//! | `definition` | what a recipe says |
//! | `parameters` | settings, and what they come to for a tensor |
//! | `no_value` | the error about a parameter that must have a value |
//! | `inputs` | models as runs of layers |
//! | `planner` | each output tensor: its inputs and parameters |
//! | `vocabulary`, `chat_template` | tokenizers, rows of unlike vocabularies, templates |
//! | `buffers`, `cast` | whole numbers, dtypes |
//! | `methods` | the contract with the methods, and these, one a file |
//! | `formula`, `pointwise` | what methods compute, on f32 lanes, and the kernel of all of them |
//! | `linear`, `scale`, `slerp`, … | formulas, one a file |
//! | `files` | config.json and tokenizer of the result |

mod arcee_fusion;
mod buffers;
mod cast;
mod chat_template;
mod definition;
mod files;
mod formula;
mod inputs;
mod linear;
mod method;
mod methods;
mod model_stock;
mod names;
mod nearswap;
mod no_value;
mod nuslerp;
mod parameters;
mod planner;
mod pointwise;
mod quantiles;
mod ram;
mod random_mask;
mod ranks;
mod scale;
mod sce;
mod slerp;
mod sphere;
mod task_arithmetic;
mod vocabulary;

pub use arcee_fusion::ArceeFusion;
pub use definition::{
    ChatTemplate, Definition, Inputs, ModelId, ModelInput, ModelName, Module, Modules, Slice,
    SliceInput, TokenName, TokenRow, TokenRule, TokenizerChoice, TokenizerSource, Vocabulary,
};
pub(in crate::ops) use files::{select as select_files, set_dtype};
pub use formula::{At, Formula, Lanes, RUN, Size};
pub use inputs::Source;
pub use linear::Linear;
pub use method::{BasePolicy, Bounds, Group, Input, Method, Missing, Spec};
pub use methods::method;
pub use model_stock::{ModelStock, ModelStockByRow};
pub(in crate::ops) use names::{in_layer, layer};
pub use nearswap::NearSwap;
pub use nuslerp::{Between, NuSlerp, NuSlerpByColumn, NuSlerpByRow};
pub use parameters::{
    Amount, Condition, Kind, Parameter, Preset, Range, Scalar, Scope, Setting, Settings, Values,
};
pub use pointwise::PointwiseKernel;
pub use ram::{Ram, RamRescale};
pub use random_mask::RandomMask;
pub use scale::Scale;
pub use sce::Sce;
pub use slerp::Slerp;
pub use sphere::{OnSphere, SphericalMean};
pub use task_arithmetic::{Combination, Keep, Task, TaskArithmetic};

use crate::catalog::{Catalog, MergeReport, Role, StretchReport};
pub use crate::error::Place;
use crate::error::{Code, Result, Warning};
use crate::ops::merge::planner::{Planned, Planner};
use crate::ops::merge::vocabulary::Rows;
pub(in crate::ops) use crate::ops::merge::vocabulary::file as tokenizer_file;
use crate::spelling::did_you_mean;
use crate::text::listing;

/// A merge and its models, in the order of [`Definition::models`].
#[derive(Debug)]
pub struct Merge {
    pub definition: Definition,
    pub sources: Vec<Source>,
}

impl Merge {
    /// The merged model.
    ///
    /// # Errors
    /// If these models cannot be merged so; the message names the place in the recipe or the
    /// tensor.
    pub fn catalog(self) -> Result<Catalog> {
        let Merge {
            definition,
            mut sources,
        } = self;
        for source in &mut sources {
            source.catalog.config_mut()?;
        }
        let stacks = inputs::stacks(&definition, &sources)?;
        let rows = Rows::new(&definition, &sources)?;
        let planned = Planner::new(&definition, &sources, &rows).plan(&stacks)?;

        let donor = definition.donor();
        let whole = stacks.iter().all(|stack| stack.whole);
        let (tokenizer, changed) = rows.tokenizer().unwrap_or((donor, &[]));
        let tokenizer = (tokenizer != donor).then(|| sources[tokenizer].catalog.aux.clone());
        let mut catalog = Catalog {
            tensors: Default::default(),
            homes: Vec::new(),
            sources: Default::default(),
            aux: sources[donor].catalog.aux.clone(),
            attributes: sources[donor].catalog.attributes,
            config: sources[donor].catalog.config.clone(),
            report: Default::default(),
        };
        files::select(&mut catalog, tokenizer);
        files::replace(&mut catalog, changed);
        let models = definition.merged_models();
        if let Some(template) = &definition.chat_template
            && let Some(text) = template.text(&models, &sources)?
        {
            chat_template::set(&mut catalog, &text)?;
        }
        files::edit_config(
            &mut catalog,
            &definition,
            &sources,
            &stacks,
            &rows,
            &planned,
        )?;
        drop(stacks);
        for source in &sources {
            catalog.sources.merge(&source.catalog.sources);
        }
        report(&mut catalog, &definition, &sources, &planned);
        catalog.report.notes.extend(rows.note(&sources));
        catalog.report.warnings.extend(rows.warning(&models));
        place(&mut catalog, &sources[donor].catalog, planned, whole);
        Ok(catalog)
    }
}

/// Puts the tensors into the catalog. A merge of whole models keeps order and shards of the donor;
/// one of slices has an order of its own.
fn place(catalog: &mut Catalog, donor: &Catalog, mut planned: Planned, whole: bool) {
    if whole {
        catalog.homes.clone_from(&donor.homes);
        for (name, like) in &donor.tensors {
            if let Some((name, mut tensor)) = planned.tensors.swap_remove_entry(name) {
                tensor.home = like.home;
                catalog.tensors.insert(name, tensor);
            }
        }
    }
    for (name, mut tensor) in planned.tensors {
        tensor.home = None;
        catalog.tensors.insert(name, tensor);
    }
}

fn report(catalog: &mut Catalog, definition: &Definition, sources: &[Source], planned: &Planned) {
    let method = definition.method.spec();
    let report = &mut catalog.report;
    for source in sources {
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
    for (name, place) in parameters::unknown(method.parameters, definition.settings()) {
        let known = method.parameters.iter().map(|parameter| parameter.name);
        let problem = format!(
            "{} takes no parameter {name}, which has no effect{}",
            method.name,
            did_you_mean(name, known)
        );
        report
            .warnings
            .push(place.warning(Code::RecipeKey, problem));
    }
    if !planned.incomplete.is_empty() {
        report.warnings.push(Warning::new(
            Code::MergeIncomplete,
            format!(
                "not every model has {}; {}",
                listing(&planned.incomplete),
                match planned.skipped.len() {
                    0 => "they are made of the models that do".to_owned(),
                    n => format!("{n} of them are left out, the others made of the models that do"),
                }
            ),
        ));
    }
    if !planned.left_out.is_empty() {
        report.warnings.push(Warning::new(
            Code::MergeLayers,
            format!(
                "left out, since slices have no place for layers after the last: {}",
                listing(&planned.left_out)
            ),
        ));
    }
    let dtype =
        |dtype: Option<crate::tensor::Dtype>| dtype.map(|d| files::torch_name(d).to_owned());
    report.merge = Some(MergeReport {
        method: method.name.to_owned(),
        models: sources.iter().map(|source| source.name.clone()).collect(),
        base: definition.base.map(|base| sources[base].name.clone()),
        files_of: sources[definition.donor()].name.clone(),
        dtype: dtype(definition.dtype),
        out_dtype: dtype(definition.out_dtype.or(definition.dtype)),
        stretches: planned
            .stretches
            .iter()
            .map(|(stretch, tensors)| StretchReport {
                what: stretch.what.clone(),
                from: stretch.from.clone(),
                stored: stretch.stored,
                tensors: *tensors,
            })
            .collect(),
    });
}

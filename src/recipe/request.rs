//! What a user asks for, and the view that comes of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::catalog::Catalog;
use crate::error::setting::{LIKE, SHARD_SIZE, SHARDS};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::format::OUTPUT;
use crate::layout::{self, Plan, Shards};
use crate::named::Named;
use crate::ops::dtype::InDtype;
use crate::ops::lora::Lora;
use crate::ops::merge::Source;
use crate::ops::{
    ExpertOrder, Group, Numbers, Operations, Operator, Params, Precision, Setting, Takes, Value,
    chosen, open,
};
use crate::quant::has_quantized;
use crate::recipe::assembly::Assembly;
use crate::recipe::yaml::Node;
use crate::source::{Location, not_downloaded};
use crate::tensor::Dtype;

/// What several models become, and where they are.
#[derive(Debug, Clone)]
pub struct MergeRequest {
    pub assembly: Assembly,
    /// In the order of [`Assembly::models`].
    pub models: Vec<MergedModel>,
    /// The document that it is from.
    pub(super) root: Node,
    /// What the recipe calls models, and where they were found.
    pub(super) found: Vec<(String, Location)>,
}

/// A model that takes part in a merge.
#[derive(Debug, Clone)]
pub struct MergedModel {
    pub origin: ModelOrigin,
    /// A LoRA adapter that is merged into it first.
    pub lora: Option<Location>,
}

/// What a model of a merge is.
#[derive(Debug, Clone)]
pub enum ModelOrigin {
    At(Location),
    /// What another document of the recipe describes.
    View(Box<ViewRequest>),
}

impl ModelOrigin {
    /// The checkpoint that it starts from.
    pub fn base(&self) -> &Location {
        match self {
            ModelOrigin::At(location) => location,
            ModelOrigin::View(request) => &request.base,
        }
    }
}

impl MergeRequest {
    /// The requests of other documents that it is made of.
    pub(super) fn nested(&self) -> impl Iterator<Item = &ViewRequest> {
        self.models.iter().filter_map(|model| match &model.origin {
            ModelOrigin::At(_) => None,
            ModelOrigin::View(request) => Some(&**request),
        })
    }

    /// The merged model. Adapters that do not say the order of their experts have them in `experts`.
    fn catalog(&self, experts: Option<ExpertOrder>) -> Result<Catalog> {
        let dtype = self.assembly.dtype();
        let numbers = Numbers::all(
            dtype
                .and_then(Precision::from_dtype)
                .unwrap_or(Precision::Bf16),
        );
        let names = self.assembly.models().iter().zip(&self.models).enumerate();
        let sources = names.map(|(i, (name, model))| {
            let mut catalog = match &model.origin {
                ModelOrigin::At(location) if self.assembly.is_of_routers(i) => {
                    Catalog::from_base(open::tensors(location, &numbers)?)
                }
                ModelOrigin::At(location) => open::catalog(location, &numbers, None, false)?,
                ModelOrigin::View(request) => request.catalog()?,
            };
            dequantize(&mut catalog, dtype)?;
            if let Some(adapter) = &model.lora {
                Lora::open(adapter, 1.0, experts)?.apply(&mut catalog)?;
            }
            Ok(Source {
                name: name.name.clone(),
                catalog,
            })
        });
        self.assembly.catalog(sources.collect::<Result<_>>()?)
    }
}

/// Has the quantized weights of a model given as numbers, since merges compute with numbers: to the dtype of the
/// merge, or to BF16 if it has none.
fn dequantize(catalog: &mut Catalog, dtype: Option<Dtype>) -> Result<()> {
    if !has_quantized(catalog) {
        return Ok(());
    }
    let to = dtype
        .and_then(Precision::from_dtype)
        .unwrap_or(Precision::Bf16);
    InDtype::only_quantized(to).apply(catalog)
}

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct ViewRequest {
    /// The checkpoint that the view starts from; of a merge, the one that gives config.json and
    /// tokenizer.
    pub base: Location,
    /// Start from this merge instead.
    pub merge: Option<MergeRequest>,
    /// The recipe that this was read from.
    pub recipe: Option<PathBuf>,
    /// What other documents of the recipe call it.
    pub name: Option<String>,
    /// What is done to its tensors.
    pub operations: Operations,
    /// Which shards the view has. Without it, those of the base where they have standard names or the
    /// view is a plain patch or graft, and else new ones.
    pub shards: Option<Shards>,
    /// The most tensor bytes in one shard, except for a single larger tensor.
    pub shard_bytes: u64,
    /// What is probably not what was meant, found out before planning.
    pub warnings: Vec<Warning>,
}

/// The setting of [`ViewRequest::shards`].
pub(super) static SHARDS_SETTING: Setting = Setting {
    key: SHARDS,
    flag: "shards",
    takes: Takes::Choice(Shards::NAMES),
    group: Group::Shards,
    help: "Keep the base's shards, renumber them without cutting them, repack all tensors, or pack a single file [default: keep, or repack if names are not standard]",
    comment: "",
};

/// The default of [`ViewRequest::shard_bytes`]: 4 GiB.
pub const DEFAULT_SHARD_BYTES: u64 = 4 << 30;

impl ViewRequest {
    /// A view of `base` as it is.
    pub fn new(base: impl Into<Location>) -> Self {
        ViewRequest {
            base: base.into(),
            merge: None,
            recipe: None,
            name: None,
            operations: Operations::default(),
            shards: None,
            shard_bytes: DEFAULT_SHARD_BYTES,
            warnings: Vec::new(),
        }
    }

    /// The same with what `ask` asks of the operators.
    pub fn with(mut self, ask: impl FnOnce(&mut Operations)) -> Self {
        ask(&mut self.operations);
        self
    }

    /// The settings that [`set`](Self::set) takes: those of the operators, then the view's own.
    pub fn settings() -> Vec<&'static Setting> {
        let operations = Operations::default();
        let settings = operations.each().flat_map(|params| params.settings());
        settings.chain([&SHARDS_SETTING]).collect()
    }

    /// Names that flags had before and still may have: the flag, and the former name.
    pub fn former_flags() -> Vec<(&'static str, &'static str)> {
        let operations = Operations::default();
        let former = operations.each().flat_map(|params| params.former_flags());
        former.copied().collect()
    }

    /// Takes `value` for the setting `key`: a list goes on, all else is replaced.
    ///
    /// # Errors
    /// If it is not a possible value.
    ///
    /// # Panics
    /// If there is no such setting.
    pub fn set(&mut self, key: &str, value: Value) -> Result<()> {
        if key == SHARDS {
            self.shards = Some(chosen(value)?);
            return Ok(());
        }
        self.operations.set(key, value)
    }

    /// Opens the sources and plans the view. Reads indexes, headers and configs; of tensors
    /// only scales that are passed through, and embedding and head where they are compared.
    ///
    /// # Errors
    /// If a source is not a valid checkpoint or the view asked for cannot exist.
    pub fn plan(&self) -> Result<Plan> {
        if self.shard_bytes == 0 {
            let error = Error::new(Code::BadValue, "it must not be 0");
            return Err(error.about(SHARD_SIZE));
        }
        if self.shards == Some(Shards::Single) && self.shard_bytes != DEFAULT_SHARD_BYTES {
            let problem = "a single file and a shard size exclude each other";
            let hint = Hint::leave_out(SHARDS).or(Hint::leave_out(SHARD_SIZE));
            return Err(Error::new(Code::Conflict, problem).with_hint(hint));
        }
        let mut catalog = self.catalog()?;
        let shards = self.shards_of(&catalog);
        self.warn_idle_shard_size(&mut catalog, shards);
        let not_downloaded = not_downloaded(&catalog.aux);
        catalog.report.warnings.extend(not_downloaded);
        let config = catalog.glance_at_config();
        let missing = config.and_then(|config| catalog.parts().missing_layers(&config));
        catalog.report.warnings.extend(missing);
        if let Some(kind) = self.operations.gguf.kind {
            let order = layout::in_order(&catalog, shards, self.shard_bytes)?;
            let model = self.operations.gguf.model(kind, &mut catalog, &order)?;
            return layout::gguf(catalog, model);
        }
        layout::shards(catalog, shards, self.shard_bytes)
    }

    /// Opens the sources and applies the operators: the view before it is laid out in files.
    fn catalog(&self) -> Result<Catalog> {
        let mut catalog = match &self.merge {
            Some(_) if self.operations.like.is_asked() => {
                let problem = "a merge has config and tokenizer of its models";
                let error = Error::new(Code::Conflict, problem).about(LIKE);
                return Err(error.with_hint(Hint::leave_out(LIKE)));
            }
            Some(merge) => merge.catalog(self.operations.lora.experts)?,
            None => self.operations.base(&self.base)?,
        };
        catalog
            .report
            .warnings
            .extend(self.warnings.iter().cloned());
        let operators = self.operations.operators()?;
        for operator in &operators {
            operator.apply(&mut catalog)?;
        }
        for operator in &operators {
            operator.finish(&mut catalog)?;
        }
        Ok(catalog)
    }

    /// What the view reads from, the base first.
    pub fn sources(&self) -> Vec<Location> {
        let mut sources = vec![self.base.clone()];
        for model in self.merge.iter().flat_map(|merge| &merge.models) {
            match &model.origin {
                ModelOrigin::At(location) => sources.push(location.clone()),
                ModelOrigin::View(request) => sources.extend(request.sources()),
            }
            sources.extend(model.lora.clone());
        }
        sources.extend(self.operations.sources());
        let mut seen = HashSet::new();
        sources.retain(|source| seen.insert(source.clone()));
        sources
    }

    /// The [sources](Self::sources) that are directories of this machine.
    pub fn directories(&self) -> Vec<PathBuf> {
        let sources = self.sources();
        let local = sources.iter().filter_map(Location::local);
        local.map(Path::to_owned).collect()
    }

    /// What no output may touch: directories and URLs that the view is made from, and the recipe.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let is_named = |source: &Location| !matches!(source, Location::Open(_));
        let sources = self.sources().into_iter().filter(is_named);
        let mut inputs: Vec<PathBuf> = sources.map(|s| s.as_path().to_owned()).collect();
        inputs.extend(self.recipe.clone());
        inputs
    }

    /// Where no tensor is packed, no shard has a size to keep to.
    fn warn_idle_shard_size(&self, catalog: &mut Catalog, shards: Shards) {
        let packs = matches!(shards, Shards::Repack | Shards::Single)
            || catalog.tensors.values().any(|tensor| tensor.home.is_none());
        if self.shard_bytes != DEFAULT_SHARD_BYTES && !packs {
            let problem = "it has no effect: the view keeps the shards of the base";
            let repack = Hint::give_value(SHARDS, Shards::Repack.name());
            let repack = repack.to("pack all tensors into new shards");
            let warning = Warning::new(Code::NoEffect, problem).about(SHARD_SIZE);
            catalog.report.warnings.push(warning.with_hint(repack));
        }
    }

    /// Which shards the view of `catalog` has: those asked for, or by the rules.
    fn shards_of(&self, catalog: &Catalog) -> Shards {
        let patched = self.operations.patch.is_asked();
        let adds = patched || catalog.tensors.values().any(|tensor| tensor.home.is_none());
        match self.shards {
            Some(Shards::Single) => Shards::Single,
            Some(Shards::Repack) => Shards::Repack,
            // Slices have no shards to keep.
            _ if catalog.homes.is_empty() => Shards::Repack,
            None if !self.is_plain_patch() && !has_standard_names(catalog) => Shards::Repack,
            _ if adds => Shards::Renumber,
            None if !has_standard_names(catalog) => Shards::Renumber,
            Some(Shards::Keep) => Shards::Keep,
            Some(Shards::Renumber) if is_numbered(catalog) => Shards::Keep,
            Some(Shards::Renumber) => Shards::Renumber,
            // Standard names count the shards, and operators may leave one without tensors.
            None if kept_homes(catalog).count() < catalog.homes.len() => Shards::Renumber,
            None => Shards::Keep,
        }
    }

    /// Whether nothing is done but what keeps the shards of a view with tensors of other checkpoints
    /// as they are.
    fn is_plain_patch(&self) -> bool {
        let mut asked = self.operations.each().filter(|params| params.is_asked());
        let patched = self.operations.patch.is_asked() || self.operations.graft.is_asked();
        patched && asked.all(|params| params.keeps_shards())
    }
}

/// Whether all shards of the base are called as loaders expect.
fn has_standard_names(catalog: &Catalog) -> bool {
    let mut homes = catalog.homes.iter();
    homes.all(|home| OUTPUT.is_standard_name(&home.name))
}

/// The names of the base's shards of which tensors are left.
fn kept_homes(catalog: &Catalog) -> impl Iterator<Item = &str> {
    let homes: HashSet<usize> = catalog.tensors.values().filter_map(|t| t.home).collect();
    homes.into_iter().map(|home| &*catalog.homes[home].name)
}

/// Whether the base's shards of which tensors are left have all numbers that they would be given, in
/// whichever order the index names them.
fn is_numbered(catalog: &Catalog) -> bool {
    let kept: HashSet<&str> = kept_homes(catalog).collect();
    let numbered = OUTPUT.standard_names(kept.len());
    numbered.is_ok_and(|mut names| names.all(|name| kept.contains(&*name)))
}

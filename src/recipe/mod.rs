//! From a request to a view: the one place that knows every operator, their order, and the layout.
//!
//! The order is fixed: a base, or a merge that a recipe describes, adapters merged, patched, renamed,
//! reduced, in one dtype, with experts in one form, quantized to FP8, laid out in shards. So patterns
//! match new names, FP8 quantizes what was dequantized, and expert forms see whatever names and dtypes
//! come out of the steps before.

mod document;
mod dtype;
mod emit;
mod from_file;
mod models;
mod quoted;
mod settings;
mod size;
mod surveys;
mod view_section;
mod yaml;

use std::collections::HashSet;
use std::path::PathBuf;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::format::{Checkpoint, OUTPUT};
use crate::layout::{self, Partition};
use crate::ops::{Cast, Filter, Fp8, Lora, Operator, Patch, Rename};

pub use dtype::{DTYPES, parse_dtype};
pub use from_file::{MergeRequest, MergedModel};
pub use models::Places;
pub use size::{parse_shard_size, parse_size};
pub use surveys::Surveys;

pub use crate::layout::Plan;
pub use crate::ops::{Experts, PartialBlocks, Precision, ScaleFormat, Selection};

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct ViewRequest {
    /// The checkpoint that the view starts from; of a merge, the one that gives config.json and
    /// tokenizer.
    pub base: PathBuf,
    /// Start from this merge instead.
    pub merge: Option<MergeRequest>,
    /// The recipe that this was read from.
    pub recipe: Option<PathBuf>,
    /// LoRA adapters that are merged into the base, in this order.
    pub loras: Vec<LoraRequest>,
    /// Checkpoints that give the tensors which the base (and every extra before) lacks.
    pub extras: Vec<PathBuf>,
    /// Rename tensors by these rules, `REGEX=REPLACEMENT`, in order.
    pub renames: Vec<String>,
    /// Keep only tensors whose whole name one of these regular expressions matches; without any,
    /// keep all.
    pub only: Vec<String>,
    /// Leave out tensors whose whole name one of these regular expressions matches.
    pub drop: Vec<String>,
    /// Give every floating tensor in this dtype.
    pub dtype: Option<Precision>,
    /// Give all experts the same form.
    pub experts: Option<Experts>,
    /// Quantize to block FP8.
    pub fp8: Option<Fp8Request>,
    pub repack: Repack,
    /// The most tensor bytes in one shard, except for a single larger tensor.
    pub shard_bytes: u64,
    /// What is probably not what was meant, found out before planning.
    pub warnings: Vec<String>,
}

/// An adapter to merge.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraRequest {
    /// The directory of adapter_config.json and adapter_model.safetensors.
    pub adapter: PathBuf,
    /// What its scaling is multiplied by: 1 merges it as it was trained.
    pub weight: f64,
}

/// The most adapters in one view.
const MOST_LORAS: usize = 16;

/// Which tensors to quantize, and how. The selections are or-ed.
#[derive(Debug, Clone, Default)]
pub struct Fp8Request {
    /// Select by the built-in rule set.
    pub rules: bool,
    /// Select the names that have a `_scale_inv` in one of these checkpoints.
    pub references: Vec<PathBuf>,
    /// Select the names that one of these regular expressions matches as a whole.
    pub patterns: Vec<String>,
    pub scale_format: ScaleFormat,
    pub partial_blocks: PartialBlocks,
}

/// Whether to pack tensors into new shards of the standard names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repack {
    /// Only if the base's shards do not have standard names (and the view is not a plain patch,
    /// which renames shards without repacking them).
    #[default]
    Auto,
    Always,
    Never,
    /// Into one `model.safetensors` without an index, as `save_pretrained` writes small models.
    SingleFile,
}

/// The default of [`ViewRequest::shard_bytes`]: 4 GiB.
pub const DEFAULT_SHARD_BYTES: u64 = 4 << 30;

impl ViewRequest {
    /// A view of `base` as it is.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        ViewRequest {
            base: base.into(),
            merge: None,
            recipe: None,
            loras: Vec::new(),
            extras: Vec::new(),
            renames: Vec::new(),
            only: Vec::new(),
            drop: Vec::new(),
            dtype: None,
            experts: None,
            fp8: None,
            repack: Repack::Auto,
            shard_bytes: DEFAULT_SHARD_BYTES,
            warnings: Vec::new(),
        }
    }

    /// Opens the sources and plans the view. Reads indexes, headers and configs, no tensors.
    ///
    /// # Errors
    /// If a source is not a valid checkpoint or the view asked for cannot exist.
    pub fn plan(&self) -> Result<Plan> {
        if self.shard_bytes == 0 {
            return Err(Error::Request("the shard size must not be 0".to_owned()));
        }
        if self.repack == Repack::SingleFile && self.shard_bytes != DEFAULT_SHARD_BYTES {
            return Err(Error::Request(
                "a single file and a shard size exclude each other; leave one of them out"
                    .to_owned(),
            ));
        }
        let mut catalog = match &self.merge {
            Some(merge) => merge.catalog()?,
            None => Catalog::from_base(Checkpoint::open(&self.base)?),
        };
        catalog
            .report
            .warnings
            .extend(self.warnings.iter().cloned());
        for operator in self.operators()? {
            operator.apply(&mut catalog)?;
        }
        let partition = self.partition(&catalog);
        self.warn_idle_shard_size(&mut catalog, partition);
        let config = catalog.glance_at_config();
        let missing = config.and_then(|config| catalog.parts().missing_layers(&config));
        catalog.report.warnings.extend(missing);
        layout::shards(catalog, partition, self.shard_bytes)
    }

    /// The directories that the view reads from.
    pub fn sources(&self) -> Vec<PathBuf> {
        let merged = self.merge.iter().flat_map(|merge| &merge.models);
        let merged = merged.flat_map(|model| std::iter::once(&model.directory).chain(&model.lora));
        let adapters = self.loras.iter().map(|lora| &lora.adapter);
        let references = self.fp8.iter().flat_map(|fp8| &fp8.references);
        let mut sources: Vec<PathBuf> = std::iter::once(&self.base)
            .chain(merged)
            .chain(adapters)
            .chain(&self.extras)
            .chain(references)
            .cloned()
            .collect();
        let mut seen = HashSet::new();
        sources.retain(|source| seen.insert(source.clone()));
        sources
    }

    /// What the view is made from, and no output may touch: the [sources](Self::sources), and the
    /// recipe.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut inputs = self.sources();
        inputs.extend(self.recipe.clone());
        inputs
    }

    fn operators(&self) -> Result<Vec<Box<dyn Operator>>> {
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        if self.loras.len() > MOST_LORAS {
            return Err(Error::Request(format!(
                "a view of {} adapters is asked for; at most {MOST_LORAS} are merged at once",
                self.loras.len()
            )));
        }
        if let Some(to) = self.dtype
            && !self.loras.is_empty()
        {
            // Adapters are merged into numbers.
            operators.push(Box::new(Cast {
                to,
                only_quantized: true,
            }));
        }
        for LoraRequest { adapter, weight } in &self.loras {
            operators.push(Box::new(Lora::open(adapter, *weight)?));
        }
        if !self.extras.is_empty() {
            let extras = self.extras.iter().map(Checkpoint::open);
            operators.push(Box::new(Patch::new(extras.collect::<Result<_>>()?)));
        }
        if !self.renames.is_empty() {
            operators.push(Box::new(Rename::new(&self.renames)?));
        }
        if !(self.only.is_empty() && self.drop.is_empty()) {
            operators.push(Box::new(Filter::new(&self.only, &self.drop)?));
        }
        if let Some(to) = self.dtype {
            operators.push(Box::new(Cast {
                to,
                only_quantized: false,
            }));
        }
        if let Some(experts) = self.experts {
            operators.push(Box::new(experts));
        }
        if let Some(fp8) = &self.fp8 {
            let selection = Selection::new(fp8.rules, &fp8.references, &fp8.patterns)?;
            operators.push(Box::new(Fp8 {
                selection,
                scale_format: fp8.scale_format,
                partial_blocks: fp8.partial_blocks,
            }));
        }
        Ok(operators)
    }

    /// Where no tensor is packed, no shard has a size to keep to.
    fn warn_idle_shard_size(&self, catalog: &mut Catalog, partition: Partition) {
        let packs = matches!(partition, Partition::Repack | Partition::Single)
            || catalog.tensors.values().any(|tensor| tensor.home.is_none());
        if self.shard_bytes != DEFAULT_SHARD_BYTES && !packs {
            let warning = "the shard size has no effect: the view keeps the shards of the base; --repack packs all tensors into new shards";
            catalog.report.warnings.push(warning.to_owned());
        }
    }

    fn partition(&self, catalog: &Catalog) -> Partition {
        let patched = !self.extras.is_empty();
        let plain_patch = patched
            && self.renames.is_empty()
            && self.only.is_empty()
            && self.drop.is_empty()
            && self.dtype.is_none()
            && self.experts.is_none()
            && self.fp8.is_none();
        let homes: HashSet<usize> = catalog.tensors.values().filter_map(|t| t.home).collect();
        let standard = catalog
            .homes
            .iter()
            .all(|home| OUTPUT.is_standard_name(&home.name));
        match self.repack {
            Repack::SingleFile => Partition::Single,
            Repack::Always => Partition::Repack,
            // Slices have no shards to keep.
            _ if catalog.homes.is_empty() => Partition::Repack,
            Repack::Auto if !standard && !plain_patch => Partition::Repack,
            _ if patched || catalog.tensors.values().any(|t| t.home.is_none()) => {
                Partition::Renumber
            }
            // Standard names count the shards, and operators may leave one without tensors.
            Repack::Auto if homes.len() < catalog.homes.len() => Partition::Renumber,
            _ => Partition::Keep,
        }
    }
}

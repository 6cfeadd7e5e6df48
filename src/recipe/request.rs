//! What a user asks for, and the view that comes of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::catalog::Catalog;
use crate::error::setting::{REPACK, SHARD_SIZE, SINGLE_FILE};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::format::{Checkpoint, OUTPUT};
use crate::layout::{self, Partition, Plan};
use crate::ops::{Operations, Params};
use crate::recipe::merge_request::MergeRequest;
use crate::source::Location;

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
    /// What is done to its tensors.
    pub operations: Operations,
    pub repack: Repack,
    /// The most tensor bytes in one shard, except for a single larger tensor.
    pub shard_bytes: u64,
    /// What is probably not what was meant, found out before planning.
    pub warnings: Vec<Warning>,
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
    pub fn new(base: impl Into<Location>) -> Self {
        ViewRequest {
            base: base.into(),
            merge: None,
            recipe: None,
            operations: Operations::default(),
            repack: Repack::Auto,
            shard_bytes: DEFAULT_SHARD_BYTES,
            warnings: Vec::new(),
        }
    }

    /// The same with what `ask` asks of the operators.
    pub fn with(mut self, ask: impl FnOnce(&mut Operations)) -> Self {
        ask(&mut self.operations);
        self
    }

    /// Opens the sources and plans the view. Reads indexes, headers and configs, no tensors.
    ///
    /// # Errors
    /// If a source is not a valid checkpoint or the view asked for cannot exist.
    pub fn plan(&self) -> Result<Plan> {
        if self.shard_bytes == 0 {
            let error = Error::new(Code::BadValue, "it must not be 0");
            return Err(error.about(SHARD_SIZE));
        }
        if self.repack == Repack::SingleFile && self.shard_bytes != DEFAULT_SHARD_BYTES {
            let problem = "a single file and a shard size exclude each other";
            let hint = Hint::leave_out(SINGLE_FILE).or(Hint::leave_out(SHARD_SIZE));
            return Err(Error::new(Code::Conflict, problem).with_hint(hint));
        }
        let mut catalog = match &self.merge {
            Some(merge) => merge.catalog()?,
            None => Catalog::from_base(Checkpoint::open(&self.base)?),
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
        let partition = self.partition(&catalog);
        self.warn_idle_shard_size(&mut catalog, partition);
        let config = catalog.glance_at_config();
        let missing = config.and_then(|config| catalog.parts().missing_layers(&config));
        catalog.report.warnings.extend(missing);
        layout::shards(catalog, partition, self.shard_bytes)
    }

    /// What the view reads from, the base first.
    pub fn sources(&self) -> Vec<Location> {
        let merged = self.merge.iter().flat_map(|merge| &merge.models);
        let merged = merged.flat_map(|model| std::iter::once(&model.location).chain(&model.lora));
        let mut sources: Vec<Location> = std::iter::once(&self.base)
            .chain(merged)
            .cloned()
            .chain(self.operations.sources())
            .collect();
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

    /// What no output may touch: [directories](Self::directories) that the view is made from, and
    /// the recipe.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut inputs = self.directories();
        inputs.extend(self.recipe.clone());
        inputs
    }

    /// Where no tensor is packed, no shard has a size to keep to.
    fn warn_idle_shard_size(&self, catalog: &mut Catalog, partition: Partition) {
        let packs = matches!(partition, Partition::Repack | Partition::Single)
            || catalog.tensors.values().any(|tensor| tensor.home.is_none());
        if self.shard_bytes != DEFAULT_SHARD_BYTES && !packs {
            let problem = "it has no effect: the view keeps the shards of the base";
            let repack = Hint::give_value(REPACK, "true").to("pack all tensors into new shards");
            let warning = Warning::new(Code::NoEffect, problem).about(SHARD_SIZE);
            catalog.report.warnings.push(warning.with_hint(repack));
        }
    }

    fn partition(&self, catalog: &Catalog) -> Partition {
        let patched = self.operations.patch.is_asked();
        let mut asked = self.operations.each().filter(|params| params.is_asked());
        let plain_patch = patched && asked.all(|params| params.keeps_shards());
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

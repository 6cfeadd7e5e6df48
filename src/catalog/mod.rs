//! The catalog: an ordered map of tensors, stored or computed, that operators rewrite, with the
//! aux files, the pending edits of config.json, and what the plan has to say.

mod config;
mod described;
mod fidelity;
mod gather;
mod gguf;
mod kernel;
mod opened;
mod report;
mod sources;
mod step;
mod stored;
mod tensor;

use std::sync::Arc;

use indexmap::IndexMap;

pub(crate) use config::values;
pub use config::{CONFIG_FILE, Config, Edit};
pub use described::Parts;
pub(crate) use described::in_layer;
pub use fidelity::{AmaxRange, Fidelity};
pub(crate) use gather::{Gather, Part};
pub use gguf::{GgufModel, GgufTensor};
pub use kernel::{
    Band, ErrorMeasure, Kernel, MeasuredRows, NonFinite, NumberKind, RowBands, Strips, Survey,
};
pub use opened::Opened;
pub use report::{
    EditedConfig, FileChange, FileEdit, GraftReport, MergeReport, OperatorReport, Report, Role,
    SourceReport, StretchReport,
};
pub use sources::Sources;
pub use step::{Step, as_written};
pub use tensor::{Extent, Extents, Node, NodeId, Tensor};

use crate::error::Result;
use crate::format::Shard;
use crate::source::{Attributes, AuxEntry};
use crate::tensor::Name;

/// What a view will hold, before it is laid out in files.
#[derive(Debug)]
pub struct Catalog {
    /// Name → tensor, in the order in which layouts pack them.
    pub tensors: IndexMap<Name, Tensor>,
    /// The base's shards, a partition that layouts may keep; [`Tensor::home`] is a position here.
    pub homes: Vec<Arc<Shard>>,
    /// Every shard of which a tensor may have bytes, or be computed from some.
    pub sources: Sources,
    pub aux: Vec<AuxEntry>,
    /// Attributes of the base directory.
    pub attributes: Attributes,
    /// config.json, once an operator has asked for it.
    pub config: Option<Config>,
    pub report: Report,
}

impl Catalog {
    /// The catalog that is exactly `base`.
    pub fn from_base(base: Opened) -> Self {
        let mut sources = Sources::default();
        sources.extend(&base.shards, Role::Base);
        let homes = base.homes();
        let report = SourceReport {
            role: Role::Base,
            path: base.path,
            tensors: base.tensors.len(),
            bytes: base.bytes,
            added: base.tensors.len(),
            added_bytes: base.bytes,
            overlapping: 0,
            left_out: base.left_out,
            graft: None,
        };
        Catalog {
            tensors: base.tensors,
            sources,
            homes,
            aux: base.aux,
            attributes: base.attributes,
            config: None,
            report: Report {
                sources: vec![report],
                notes: base.notes,
                ..Report::default()
            },
        }
    }

    /// config.json, to be read or edited; `None` if the base has none.
    pub fn config_mut(&mut self) -> Result<Option<&mut Config>> {
        if self.config.is_none() {
            self.config = Config::find(&self.aux)?;
        }
        Ok(self.config.as_mut())
    }

    /// config.json as it is now, only to be looked at; `None` if there is none, or none that is small
    /// and can be read.
    pub fn glance_at_config(&self) -> Option<Config> {
        const MAX_BYTES: u64 = 1 << 20;
        self.config.clone().or_else(|| {
            let mut aux = self.aux.iter();
            let entry = aux.find(|entry| entry.name() == CONFIG_FILE)?;
            let bytes = match entry {
                AuxEntry::File { file, .. } => file.len(),
                AuxEntry::Edited { text, .. } => text.len() as u64,
                AuxEntry::Directory { .. } => return None,
            };
            let is_small = bytes <= MAX_BYTES;
            is_small.then(|| Config::find(std::slice::from_ref(entry)).ok())??
        })
    }

    /// The parts of a model that there are.
    pub fn parts(&self) -> Parts {
        Parts::from_names(self.tensors.keys().map(|name| &**name))
    }
}

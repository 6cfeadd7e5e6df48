//! What several models become: a merge, or a mixture of experts.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::ops::merge::{Definition, Merge, ModelId, ModelName, Source};
use crate::ops::moe::{Moe, MoeDefinition};
use crate::tensor::Dtype;

/// How models are put together.
#[derive(Debug, Clone)]
pub enum Assembly {
    Merge(Definition),
    Moe(MoeDefinition),
}

impl Assembly {
    /// Every model that it names, once.
    pub fn models(&self) -> &[ModelName] {
        match self {
            Assembly::Merge(definition) => &definition.models,
            Assembly::Moe(definition) => &definition.models,
        }
    }

    /// The model that gives config.json, tokenizer and other files.
    pub fn donor(&self) -> ModelId {
        match self {
            Assembly::Merge(definition) => definition.donor(),
            Assembly::Moe(definition) => definition.base,
        }
    }

    /// What tensors are cast to first.
    pub(super) fn dtype(&self) -> Option<Dtype> {
        match self {
            Assembly::Merge(definition) => definition.dtype,
            Assembly::Moe(definition) => definition.dtype,
        }
    }

    /// Whether a model only gives routers: it may be a file without a config.
    pub(super) fn is_of_routers(&self, model: ModelId) -> bool {
        match self {
            Assembly::Merge(_) => false,
            Assembly::Moe(definition) => definition.is_of_routers(model),
        }
    }

    /// What is made of `sources`, in the order of [`models`](Self::models).
    pub(super) fn catalog(&self, sources: Vec<Source>) -> Result<Catalog> {
        match self.clone() {
            Assembly::Merge(definition) => Merge {
                definition,
                sources,
            }
            .catalog(),
            Assembly::Moe(definition) => Moe {
                definition,
                sources,
            }
            .catalog(),
        }
    }
}

//! What a recipe says about a mixture of experts, parsed and checked as far as that goes without the models.

use std::collections::BTreeSet;

use crate::error::Place;
use crate::ops::merge::{ModelId, ModelName};
use crate::tensor::Dtype;

/// A mixture of experts that is made of dense models.
#[derive(Debug, Clone)]
pub struct MoeDefinition {
    pub place: Place,
    /// Every model that the recipe names, once.
    pub models: Vec<ModelName>,
    /// The model that gives everything but experts and routers.
    pub base: ModelId,
    pub experts: Vec<Expert>,
    pub shared: Option<Expert>,
    pub gates: Gates,
    pub experts_per_token: u64,
    /// What tensors are cast to; without it, the dtype that the base's config.json names.
    pub dtype: Option<Dtype>,
    /// The name of the architecture, or the start of it; without it, the first that the models fit.
    pub architecture: Option<(String, Place)>,
    /// What random numbers depend on.
    pub seed: u64,
}

/// A model whose MLPs are one expert.
#[derive(Debug, Clone)]
pub struct Expert {
    pub model: ModelId,
    pub place: Place,
    pub prompts: Prompts,
    /// What `down_proj` is multiplied by.
    pub residual_scale: Option<f64>,
}

/// Texts of the kind that an expert is for, and of the kind that it is not for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    pub positive: Vec<String>,
    pub negative: Vec<String>,
}

/// Where the rows of the routers are from, one for each expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// The sums of the embeddings of prompts, the same in all layers.
    CheapEmbed,
    /// Random numbers of the standard normal distribution.
    Random,
    /// Random numbers between plus and minus the root of one by the hidden size.
    UniformRandom,
    /// The routers in a checkpoint or file.
    File(ModelId),
}

impl MoeDefinition {
    /// The base, the experts and the shared expert, each once.
    pub(super) fn mixed_models(&self) -> BTreeSet<ModelId> {
        let experts = self.experts.iter().chain(&self.shared);
        let experts = experts.map(|expert| expert.model);
        experts.chain([self.base]).collect()
    }

    /// Whether a model only gives routers.
    pub fn is_of_routers(&self, model: ModelId) -> bool {
        self.gates == Gates::File(model) && !self.mixed_models().contains(&model)
    }
}

//! What a recipe says about a merge, parsed and checked as far as that goes without the models.

use crate::error::Place;
use crate::ops::merge::method::Method;
use crate::ops::merge::parameters::Settings;
use crate::tensor::Dtype;

/// The position of a model in [`Definition::models`].
pub type ModelId = usize;

/// A merge.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Where the method is named.
    pub place: Place,
    pub method: &'static dyn Method,
    /// Every model that the recipe names, once.
    pub models: Vec<ModelName>,
    pub modules: Modules,
    pub base: Option<ModelId>,
    pub parameters: Settings,
    /// What inputs are cast to before arithmetic.
    pub dtype: Option<Dtype>,
    /// What outputs are cast to.
    pub out_dtype: Option<Dtype>,
    pub vocabulary: Vocabulary,
    /// None leaves the template that the tokenizer has.
    pub chat_template: Option<ChatTemplate>,
    /// What random choices depend on.
    pub seed: u64,
}

/// A model as the recipe names it.
#[derive(Debug, Clone)]
pub struct ModelName {
    pub name: String,
    pub place: Place,
}

/// The output, module by module.
#[derive(Debug, Clone)]
pub enum Modules {
    /// Every module of the models, made alike.
    All(Inputs),
    Named(Vec<Module>),
}

/// A module of the output: the layers of one prefix, or what stands outside of them.
#[derive(Debug, Clone)]
pub struct Module {
    pub name: String,
    pub place: Place,
    pub inputs: Inputs,
    pub parameters: Settings,
}

/// What a module is made from.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// Whole models.
    Models(Vec<ModelInput>),
    /// Runs of layers, one after the other.
    Slices(Vec<Slice>),
}

#[derive(Debug, Clone)]
pub struct ModelInput {
    pub model: ModelId,
    pub place: Place,
    pub parameters: Settings,
}

/// A run of output layers.
#[derive(Debug, Clone)]
pub struct Slice {
    pub place: Place,
    pub inputs: Vec<SliceInput>,
    /// Instead of the recipe's base.
    pub base: Option<ModelId>,
    pub parameters: Settings,
}

#[derive(Debug, Clone)]
pub struct SliceInput {
    pub model: ModelId,
    pub place: Place,
    /// The first layer, and the one behind the last.
    pub layers: (u64, u64),
    pub parameters: Settings,
}

/// Which token each row of embedding and head stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Vocabulary {
    /// As in the models, which must have equally many.
    AsIs,
    /// As in the models; rows that not all have are cut off.
    Truncate,
    /// As in a tokenizer.
    Tokenizer(TokenizerChoice),
}

/// A tokenizer that the result has, and the rows of its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerChoice {
    pub source: TokenizerSource,
    pub place: Place,
    /// Tokens that have a rule of their own; the tokenizer gets those that it lacks.
    pub tokens: Vec<TokenRule>,
    /// More rows follow those of the tokens, up to a multiple of this.
    pub pad_to_multiple_of: Option<u64>,
}

/// Which tokenizer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerSource {
    /// That of the base or first model, with the tokens of the others that it lacks.
    Union,
    /// That of the base or first model, without tokens that have no row.
    Base,
    /// That of a model.
    Model(ModelId),
}

/// What the rows of a token are.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRule {
    pub token: String,
    pub place: Place,
    /// In models that lack it. None leaves it to the rules for all tokens.
    pub source: Option<TokenRow>,
    /// In models that have it too.
    pub force: bool,
}

/// Where a row is from.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenRow {
    Zero,
    /// The row of the same token in a model.
    Model(ModelId),
    /// The row of another token in a model.
    Token(ModelId, TokenName),
}

/// A token of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenName {
    Id(u64),
    Text(String),
}

/// The template of chats that the tokenizer of the result has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatTemplate {
    /// The one that occurs most often among the models.
    MostCommon,
    /// This text.
    Text(String),
}

impl Definition {
    /// The model that gives config.json, tokenizer and other files: the base, or else the first.
    pub fn donor(&self) -> ModelId {
        self.base.unwrap_or(0)
    }

    /// The models that are merged, the base or else the first model in front: not those that only give
    /// a tokenizer or rows of tokens.
    pub(super) fn merged_models(&self) -> Vec<ModelId> {
        let mut models = vec![self.donor()];
        let bodies: Vec<&Inputs> = match &self.modules {
            Modules::All(inputs) => vec![inputs],
            Modules::Named(modules) => modules.iter().map(|module| &module.inputs).collect(),
        };
        for inputs in bodies {
            match inputs {
                Inputs::Models(inputs) => models.extend(inputs.iter().map(|input| input.model)),
                Inputs::Slices(slices) => {
                    for slice in slices {
                        models.extend(slice.inputs.iter().map(|input| input.model));
                        models.extend(slice.base);
                    }
                }
            }
        }
        let mut seen = Vec::new();
        models.retain(|model| {
            let is_new = !seen.contains(model);
            seen.extend(is_new.then_some(*model));
            is_new
        });
        models
    }

    /// Every group of settings in the recipe.
    pub(super) fn settings(&self) -> Vec<&Settings> {
        let mut all = vec![&self.parameters];
        let inputs: Vec<&Inputs> = match &self.modules {
            Modules::All(inputs) => vec![inputs],
            Modules::Named(modules) => {
                all.extend(modules.iter().map(|module| &module.parameters));
                modules.iter().map(|module| &module.inputs).collect()
            }
        };
        for inputs in inputs {
            match inputs {
                Inputs::Models(models) => all.extend(models.iter().map(|m| &m.parameters)),
                Inputs::Slices(slices) => {
                    for slice in slices {
                        all.push(&slice.parameters);
                        all.extend(slice.inputs.iter().map(|input| &input.parameters));
                    }
                }
            }
        }
        all
    }
}

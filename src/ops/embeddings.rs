//! Which tensors have a row for each token: the embedding and the head of a language model, by the
//! names that engines load them by.

use indexmap::IndexMap;

use crate::catalog::{CONFIG_FILE, Catalog, Tensor};
use crate::error::{Code, Error, Result, Warning};
use crate::ops::is_convertible;
use crate::quant;
use crate::tensor::Name;
use crate::text::listing;

/// The modules of embeddings, and those of the heads that engines expect beside them.
///
/// Models that compute something else where the two are tied are not here: T5 scales what goes into a tied head.
const MODULES: [(&str, &str); 15] = [
    ("model.embed_tokens", "lm_head"),
    ("model.language_model.embed_tokens", "lm_head"),
    ("model.text_model.embed_tokens", "lm_head"),
    (
        "language_model.model.embed_tokens",
        "language_model.lm_head",
    ),
    ("thinker.model.embed_tokens", "thinker.lm_head"),
    ("transformer.wte", "lm_head"),
    ("wte", "lm_head"),
    ("transformer.word_embeddings", "lm_head"),
    ("word_embeddings", "lm_head"),
    ("model.word_embeddings", "lm_head"),
    ("gpt_neox.embed_in", "embed_out"),
    ("backbone.embeddings", "lm_head"),
    ("backbone.embedding", "lm_head"),
    ("model.tok_embeddings", "output"),
    (
        "transformer.embedding.word_embeddings",
        "transformer.output_layer",
    ),
];

/// The last parts of modules that may be embeddings, of whichever model.
const LIKELY: [&str; 7] = [
    "embed_tokens",
    "wte",
    "word_embeddings",
    "embed_in",
    "tok_embeddings",
    "shared",
    "text_embedding",
];

/// The key of config.json for the number of rows.
pub(in crate::ops) const VOCABULARY: &str = "vocab_size";

/// The embedding and the head of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops) struct Embeddings {
    /// The module of the embedding.
    embedding: &'static str,
    /// That of the head, which may not be there.
    head: &'static str,
}

impl Embeddings {
    /// Those of the model that `tensors` are.
    ///
    /// # Errors
    /// If none of them is called like an embedding, or several are.
    pub(in crate::ops) fn find(tensors: &IndexMap<Name, Tensor>) -> Result<Self> {
        let is_there = |module: &str| tensors.contains_key(&*weight_of(module));
        let found = MODULES.iter().filter(|(module, _)| is_there(module));
        let found: Vec<&(&str, &str)> = found.collect();
        let error = |problem: String| {
            let error = Error::new(Code::UnknownEmbedding, problem);
            Err(error.with_hint(
                "give the tensor of the language model one of the names that docs/SEMANTICS.md lists, in a view of its own, and start from that view",
            ))
        };
        match found[..] {
            [&(embedding, head)] => Ok(Embeddings { embedding, head }),
            [] => {
                let names = tensors.keys().filter(|name| is_likely(name));
                let names: Vec<&str> = names.map(|name| &**name).collect();
                let likely = match &names[..] {
                    [] => String::new(),
                    names => format!(
                        "; a model with these tensors has another head, or none: {}",
                        listing(names)
                    ),
                };
                error(format!(
                    "no tensor is called as the embedding of a language model is, such as {}{likely}",
                    weight_of(MODULES[0].0)
                ))
            }
            _ => {
                let names: Vec<String> =
                    found.iter().map(|(module, _)| weight_of(module)).collect();
                error(format!(
                    "several tensors are called as the embedding of a language model is: {}",
                    listing(&names)
                ))
            }
        }
    }

    /// The name of the embedding.
    pub(in crate::ops) fn embedding(&self) -> String {
        weight_of(self.embedding)
    }

    /// The name of the head.
    pub(in crate::ops) fn head(&self) -> String {
        weight_of(self.head)
    }

    /// The module of the head.
    pub(in crate::ops) fn head_module(&self) -> &'static str {
        self.head
    }

    /// Whether `name` is the embedding, the head, the head's bias, or such a weight of the layers behind the
    /// model that predict further tokens (`model.layers.61.embed_tokens.weight`, `….shared_head.head.weight`).
    pub(in crate::ops) fn has_row_for_each_token(&self, name: &str) -> bool {
        const OF_LAYERS: [&str; 2] = ["embed_tokens", "shared_head.head"];
        let Some((module, part)) = name.rsplit_once('.') else {
            return false;
        };
        if module == self.head && part == "bias" {
            return true;
        }
        let is_of_layer = || {
            let layer = OF_LAYERS
                .iter()
                .find_map(|end| module.strip_suffix(end)?.strip_suffix('.'));
            let split = layer.and_then(|layer| layer.rsplit_once('.'));
            split.is_some_and(|(layers, number)| {
                layers.ends_with("layers") && number.bytes().all(|b| b.is_ascii_digit())
            })
        };
        part == "weight" && (module == self.embedding || module == self.head || is_of_layer())
    }
}

fn weight_of(module: &str) -> String {
    format!("{module}.weight")
}

fn is_likely(name: &str) -> bool {
    let module = name.strip_suffix(".weight");
    let last = module.and_then(|module| module.rsplit('.').next());
    last.is_some_and(|last| LIKELY.contains(&last))
}

/// Refuses `tensor`, called `name`, unless it is a matrix or vector of numbers with rows.
///
/// # Errors
/// If it is quantized, has no rows, or is of another dtype.
pub(in crate::ops) fn check_plain(
    tensors: &IndexMap<Name, Tensor>,
    name: &str,
    tensor: &Tensor,
) -> Result<()> {
    let refuse = |problem: String| {
        let error = Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem);
        Err(error)
    };
    let mut companions = quant::companions(name);
    if let Some(companion) = companions.find(|companion| tensors.contains_key(&**companion)) {
        return refuse(format!(
            "it is quantized ({companion} is there), and only plain numbers have rows that can be moved alone"
        ));
    }
    if !is_convertible(tensor.dtype) {
        return refuse(format!(
            "it is {}; only rows of BF16, F16, F32 and F64 can be moved alone",
            tensor.dtype
        ));
    }
    if tensor.len() == 0 || tensor.shape.is_empty() {
        return refuse("it has no rows".to_owned());
    }
    Ok(())
}

/// The objects of config.json that describe the language model with `rows` tokens, each as the keys on the way to it:
/// the top level, `text_config` and what else has this number of tokens.
///
/// # Errors
/// If config.json cannot be read.
pub(in crate::ops) fn language_models(
    catalog: &mut Catalog,
    rows: u64,
) -> Result<Vec<Vec<String>>> {
    let Some(config) = catalog.config_mut()? else {
        return Ok(Vec::new());
    };
    let mut objects = vec![Vec::new()];
    if config
        .get(quant::TEXT_CONFIG)
        .is_some_and(|value| value.is_object())
    {
        objects.push(vec![quant::TEXT_CONFIG.to_owned()]);
    }
    for (mut path, value) in config.everywhere(VOCABULARY) {
        path.pop();
        if value.as_u64() == Some(rows) && !objects.contains(&path) {
            objects.push(path);
        }
    }
    Ok(objects)
}

/// Says that `what` was to be written into config.json, and there is none.
pub(in crate::ops) fn warn_without_config(
    catalog: &mut Catalog,
    setting: &'static str,
    what: &str,
) {
    let problem = format!("there is no {CONFIG_FILE} that could say {what}");
    let warning = Warning::new(Code::ConfigNotUpdated, problem).about(setting);
    catalog.report.warnings.push(warning);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_row_for_each_token_is_told_by_names() {
        let embeddings = Embeddings {
            embedding: "model.embed_tokens",
            head: "lm_head",
        };
        for name in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "lm_head.bias",
            "model.layers.61.embed_tokens.weight",
            "model.layers.61.shared_head.head.weight",
        ] {
            assert!(embeddings.has_row_for_each_token(name), "{name}");
        }
        for name in [
            "model.embed_tokens.bias",
            "embed_tokens.weight",
            "model.layers.x.embed_tokens.weight",
            "model.layers.61.shared_head.norm.weight",
            "model.embed_tokens_per_layer.weight",
            "talker.model.embed_tokens.weight",
            "lm_head",
        ] {
            assert!(!embeddings.has_row_for_each_token(name), "{name}");
        }
    }
}

//! Which tensors of a base an adapter's tensors belong to, and as what.

use indexmap::IndexMap;

use crate::catalog::Catalog;
use crate::error::{Code, Error, Result};
use crate::ops::lora::adapter::{Adapter, Settings};
use crate::ops::lora::token_indices::SETTING;
use crate::tensor::Name;

/// What stands before the names of the base's modules.
const PREFIXES: [&str; 2] = ["base_model.model.", "base_model."];
/// What is behind the path of an embedding of which rows were trained.
const TOKENS: &str = ".token_adapter.trainable_tokens_delta";
/// What stands between a wrapped module and what was in it.
const WRAPPED: &str = ".base_layer";

/// The tensors of an adapter, by what they do.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Factors, by the path of their module as the adapter has it.
    pub modules: IndexMap<String, Factors>,
    /// Tensors that take the place of the base's: the base's name, then the adapter's.
    pub replacements: IndexMap<String, Name>,
    /// Rows of embeddings, by the path of their module.
    pub tokens: IndexMap<String, Name>,
}

/// The adapter's names of the tensors that belong to one module.
#[derive(Debug, Default, Clone)]
pub(super) struct Factors {
    pub a: Option<Name>,
    pub b: Option<Name>,
    /// Whether `a` and `b` belong to an embedding.
    pub embedding: bool,
    pub magnitude: Option<Name>,
    pub bias: Option<Name>,
}

impl Factors {
    /// One of the names, for messages.
    pub(super) fn any(&self) -> &Name {
        let names = [&self.a, &self.b, &self.magnitude, &self.bias];
        let mut names = names.into_iter().flatten();
        names.next().expect("a module is listed for a tensor")
    }
}

impl Contents {
    /// Sorts the tensors of `adapter`.
    ///
    /// # Errors
    /// If the role of one is not known.
    pub(super) fn from_adapter(adapter: &Adapter) -> Result<Self> {
        let mut contents = Contents::default();
        for key in adapter.weights.tensors.keys() {
            let stripped = PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix));
            let path = stripped.unwrap_or(key);
            if let Some(module) = path.strip_suffix(TOKENS) {
                contents.tokens.insert(module.to_owned(), key.clone());
                continue;
            }
            let Some((module, role)) = split_role(path) else {
                contents.replace(path, key);
                continue;
            };
            let factors = contents.modules.entry(module.to_owned()).or_default();
            let (place, embedding) = match role {
                "lora_A.weight" => (&mut factors.a, false),
                "lora_B.weight" => (&mut factors.b, false),
                "lora_embedding_A" => (&mut factors.a, true),
                "lora_embedding_B" => (&mut factors.b, true),
                "lora_magnitude_vector" | "lora_magnitude_vector.weight" => {
                    (&mut factors.magnitude, factors.embedding)
                }
                "lora_B.bias" => (&mut factors.bias, factors.embedding),
                _ => {
                    return Err(adapter.error(
                        Code::UnsupportedAdapter,
                        key,
                        "ckptfs does not know how to merge a tensor of this name",
                    ));
                }
            };
            if place.replace(key.clone()).is_some() {
                return Err(adapter.error(
                    Code::BadAdapter,
                    key,
                    "the adapter has it twice, with and without prefix",
                ));
            }
            factors.embedding |= embedding;
        }
        contents.check_tokens(adapter)?;
        Ok(contents)
    }
}

impl Contents {
    /// What it changes, by the names of the adapter's own model.
    pub(super) fn changed_names(&self, settings: &Settings) -> Vec<String> {
        let mut names = self.adapted_names(settings);
        names.extend(self.replacements.keys().cloned());
        names.extend(self.tokens.keys().map(|module| format!("{module}.weight")));
        names
    }

    /// What has factors.
    pub(super) fn adapted_names(&self, settings: &Settings) -> Vec<String> {
        let of_module = |module: &String| {
            let (path, depth) = unwrapped(module);
            let parameters = settings.parameters_of(path);
            let mut names: Vec<String> = parameters.map(|p| format!("{path}.{p}")).collect();
            if depth == 0 && names.is_empty() {
                names.push(format!("{path}.weight"));
            }
            names
        };
        self.modules.keys().flat_map(of_module).collect()
    }

    fn check_tokens(&self, adapter: &Adapter) -> Result<()> {
        if self.tokens.is_empty() && !adapter.settings.tokens.are_none() {
            return Err(Error::of_file(
                Code::BadAdapter,
                &adapter.directory,
                format!("{SETTING} is set, but no tensor is called trainable_tokens_delta"),
            ));
        }
        let mut tokens = self.tokens.iter();
        match tokens.find(|(module, _)| self.modules.contains_key(module.as_str())) {
            Some((_, key)) => Err(adapter.error(
                Code::BadAdapter,
                key,
                "its embedding has factors too, and PEFT trains rows or factors of one",
            )),
            None => Ok(()),
        }
    }

    /// Notes that the tensor `key`, at `path` in the adapter's model, replaces one of the base.
    fn replace(&mut self, path: &str, key: &Name) {
        // The base's own module beside a trained copy of it; saved along with resized embeddings.
        if path.contains(".original_module.") {
            return;
        }
        // The same tensor may be stored under its path inside of the wrapper too.
        let name = path
            .replacen(".token_adapter.", ".", 1)
            .replacen(".base_layer.", ".", 1)
            .replacen(".modules_to_save.", ".", 1);
        if name == path {
            self.replacements.insert(name, key.clone());
        } else {
            self.replacements.entry(name).or_insert_with(|| key.clone());
        }
    }
}

/// `a.b.lora_A.weight` → (`a.b`, `lora_A.weight`).
fn split_role(path: &str) -> Option<(&str, &str)> {
    let start = path.rfind(".lora_")?;
    Some((&path[..start], &path[start + 1..]))
}

/// `a.experts.base_layer` → (`a.experts`, 1).
pub(super) fn unwrapped(module: &str) -> (&str, usize) {
    let mut path = module;
    let mut depth = 0;
    while let Some(inner) = path.strip_suffix(WRAPPED) {
        path = inner;
        depth += 1;
    }
    (path, depth)
}

/// Names of the catalog that have the most in common with `name`, for an error.
pub(super) fn close_names(catalog: &Catalog, name: &str) -> String {
    const SHOWN: usize = 3;
    let common = |other: &str| {
        let (ours, theirs) = (name.split('.'), other.split('.'));
        let before = ours.clone().zip(theirs.clone());
        let behind = ours.rev().zip(theirs.rev());
        let equal = |(a, b): &(&str, &str)| a == b;
        behind.take_while(equal).count() + before.take_while(equal).count()
    };
    let names = catalog.tensors.keys().map(|other| (common(other), other));
    let mut names: Vec<_> = names.filter(|&(common, _)| common > 0).collect();
    names.sort_by_key(|&(common, _)| std::cmp::Reverse(common));
    let shown: Vec<&str> = names.iter().take(SHOWN).map(|(_, name)| &***name).collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!("; the closest are {}", shown.join(", "))
    }
}

//! The model that a training checkpoint should be: config.json, and tensors by name where the directory that is named
//! has weights too.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::catalog::{CONFIG_FILE, Config, Tensor};
use crate::error::setting::{LIKE, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::format::{self, LeftOut};
use crate::shown::Show;
use crate::source::{AuxEntry, Location};
use crate::tensor::{Name, Shape, shape_text};
use crate::text::{counted, listing};

/// Tensors by name.
pub(super) type Tensors = IndexMap<Name, Tensor>;

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// What there should be.
pub(super) struct Expected {
    pub(super) config: Config,
    like: PathBuf,
    /// Names and shapes, if they are known.
    tensors: Option<IndexMap<Name, Option<Shape>>>,
}

impl Expected {
    /// Of the checkpoint at `path`, whose files `aux` are those of `like` or its own.
    ///
    /// # Errors
    /// If there is no config.json.
    pub(super) fn read(path: &Path, aux: &[AuxEntry], like: Option<&Location>) -> Result<Self> {
        let config = match (Config::find(aux)?, like) {
            (Some(config), _) => config,
            (None, None) => {
                let problem =
                    format!("it is a training checkpoint, and there is no {CONFIG_FILE} with it");
                let error = Error::of_file(Code::NoLike, path, problem);
                let hint = Hint::give_value(LIKE, "HF_DIR");
                return Err(error
                    .with_hint(hint.to("take config, tokenizer and names of tensors from there")));
            }
            (None, Some(like)) => {
                let problem = format!("there is no {CONFIG_FILE} in it");
                let error = Error::of_file(Code::BadConfig, like.as_path(), problem);
                return Err(error.about(LIKE));
            }
        };
        let tensors = match like {
            Some(like) => format::known_tensors(like)?,
            None => None,
        };
        Ok(Expected {
            config,
            like: like.map_or(path, Location::as_path).to_owned(),
            tensors,
        })
    }

    /// The names that are known.
    pub(super) fn names(&self) -> Option<HashSet<&str>> {
        let tensors = self.tensors.as_ref()?;
        Some(tensors.keys().map(|name| &**name).collect())
    }

    /// Whether the model may have the tensor `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        let tensors = self.tensors.as_ref();
        tensors.is_none_or(|tensors| tensors.contains_key(name))
    }

    /// A number in config.json.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn number(&self, key: &str) -> Result<u64> {
        let missing = || {
            let problem = format!("{key} is no number in it, and tensors are cut by that");
            Error::of_file(Code::BadConfig, self.config.path(), problem)
        };
        self.find_number(key).ok_or_else(missing)
    }

    /// The same, if it is there.
    pub(super) fn find_number(&self, key: &str) -> Option<u64> {
        self.config.text_model(key)?.as_u64()
    }

    /// Whether the head is the embedding.
    fn is_tied(&self) -> bool {
        let tied = self.config.get("tie_word_embeddings");
        tied.and_then(|tied| tied.as_bool()).unwrap_or(false)
    }

    /// What is said of the tensor `name` of the checkpoint, which the model does not have.
    pub(super) fn not_of_model(&self, name: &str) -> LeftOut {
        let like = self.like.shown();
        format!("tensor {}: {like} has no tensor of that name", name.shown()).into()
    }

    /// The tensors of the model, in its order. What else is `found` goes to `left_out`; what is missing is an error, or if
    /// other sources may give it, goes to `notes`.
    ///
    /// # Errors
    /// If a tensor is missing, or has another shape than in the model.
    pub(super) fn checked(
        &self,
        path: &Path,
        mut found: Tensors,
        added: bool,
        left_out: &mut Vec<LeftOut>,
        notes: &mut Vec<String>,
    ) -> Result<Tensors> {
        let Some(expected) = &self.tensors else {
            if self.is_tied() && found.contains_key(EMBEDDING) && found.shift_remove(HEAD).is_some()
            {
                let what = format!("tensor {HEAD}: it is {EMBEDDING} (tie_word_embeddings)");
                left_out.push(what.into());
            }
            if found.is_empty() {
                let problem = "it has no tensors of a model";
                return Err(Error::of_file(Code::NoCheckpoint, path, problem));
            }
            return Ok(found);
        };
        let mut tensors = Tensors::new();
        let mut missing = Vec::new();
        for (name, shape) in expected {
            let Some(tensor) = found.shift_remove(name) else {
                if **name != *HEAD || !self.is_tied() {
                    missing.push(name.shown().to_string());
                }
                continue;
            };
            if let Some(shape) = shape
                && tensor.shape != *shape
            {
                let problem = format!(
                    "it is {} here, and {} in {}",
                    shape_text(&tensor.shape),
                    shape_text(shape),
                    self.like.shown()
                );
                let error = Error::of_tensor(Code::LikeMismatch, path, &**name, problem);
                return Err(error.with_hint(Hint::give(LIKE).to(
                    "name a directory whose config.json is that of the model as it was trained",
                )));
            }
            tensors.insert(name.clone(), tensor);
        }
        if tensors.is_empty() {
            let names: Vec<&Name> = found.keys().collect();
            let problem = format!(
                "none of its tensors has a name of {}: that has names like {}, and this like {}",
                self.like.shown(),
                listing(&missing[..missing.len().min(2)]),
                listing(&names[..names.len().min(2)])
            );
            return Err(Error::of_file(Code::LikeMismatch, path, problem).about(LIKE));
        }
        if !missing.is_empty() {
            let what = format!(
                "{} of {} missing: {}",
                counted(missing.len(), "tensor"),
                self.like.shown(),
                listing(&missing)
            );
            if !added {
                let error = Error::of_file(Code::LikeMismatch, path, what);
                let like = self.like.display().to_string();
                let hint = Hint::give_value(PATCH, like).to("take from there what was not trained");
                return Err(error.with_hint(hint));
            }
            notes.push(what);
        }
        left_out.extend(found.keys().map(|name| self.not_of_model(name)));
        Ok(tensors)
    }
}

//! The tokens of a model, as its tokenizer.json and tokenizer_config.json have them.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::ops::merge::inputs::Source;
use crate::source::{AuxEntry, not_json};

pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(super) const CONFIG_FILE: &str = "tokenizer_config.json";

/// The longest tokenizer.json that is read.
const MOST_BYTES: u64 = 128 << 20;

/// A tokenizer.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Token → id.
    pub(super) ids: HashMap<String, u64>,
    /// Tokens that were added to the vocabulary, as the file has them, by their ids.
    pub(super) added: Vec<(u64, Value)>,
}

impl Tokens {
    /// Those of `source`; `None` if it has no tokenizer.json.
    ///
    /// # Errors
    /// If the file cannot be understood, or tokenizer_config.json contradicts it.
    pub(super) fn of(source: &Source) -> Result<Option<Self>> {
        let Some(json) = json(source, TOKENIZER_FILE)? else {
            return Ok(None);
        };
        let tokens = Tokens::parse(&json, &path(source, TOKENIZER_FILE))?;
        tokens.check_config(source)?;
        Ok(Some(tokens))
    }

    /// Those of `json`, the content of `path`.
    pub(super) fn parse(json: &Value, path: &std::path::Path) -> Result<Self> {
        let bad = |problem: &str| Error::of_file(Code::BadTokenizer, path, problem);
        let mut ids = HashMap::new();
        match json.pointer("/model/vocab") {
            Some(Value::Object(vocabulary)) => {
                for (token, id) in vocabulary {
                    let id = id
                        .as_u64()
                        .ok_or_else(|| bad("a token's id is no whole number"))?;
                    ids.insert(token.clone(), id);
                }
            }
            Some(Value::Array(pieces)) => {
                for (id, piece) in pieces.iter().enumerate() {
                    let token = piece.get(0).and_then(Value::as_str);
                    let token =
                        token.ok_or_else(|| bad("a piece of the vocabulary has no text"))?;
                    ids.insert(token.to_owned(), id as u64);
                }
            }
            _ => return Err(bad("it has no model.vocab")),
        }
        let mut added = Vec::new();
        let listed = json.get("added_tokens").and_then(Value::as_array);
        for token in listed.into_iter().flatten() {
            let id = token.get("id").and_then(Value::as_u64);
            let content = token.get("content").and_then(Value::as_str);
            let (Some(id), Some(content)) = (id, content) else {
                return Err(bad("an added token has no id or no content"));
            };
            ids.insert(content.to_owned(), id);
            added.push((id, token.clone()));
        }
        added.sort_by_key(|(id, _)| *id);
        Ok(Tokens { ids, added })
    }

    /// tokenizer_config.json may name further tokens, which loaders would add.
    fn check_config(&self, source: &Source) -> Result<()> {
        let Some(text) = bytes(source, CONFIG_FILE)? else {
            return Ok(());
        };
        let json: Value = serde_json::from_slice(&text).unwrap_or_default();
        let added = json.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in added.into_iter().flatten() {
            let content = token
                .get("content")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if self.ids.get(content).map(u64::to_string).as_ref() != Some(id) {
                return Err(Error::of_file(
                    Code::TokenizerMismatch,
                    path(source, CONFIG_FILE),
                    format!(
                        "it says that token {content:?} has the id {id}, and {TOKENIZER_FILE} does not; tokenizer_source needs to know the row of each token"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Every token by its id.
    ///
    /// # Errors
    /// With what is wrong, if they are not numbered from 0 without gaps.
    pub(super) fn in_order(&self) -> std::result::Result<Vec<String>, String> {
        let mut tokens = vec![None; self.ids.len()];
        for (token, id) in &self.ids {
            let free = tokens.get_mut(*id as usize).filter(|slot| slot.is_none());
            let Some(slot) = free else {
                return Err(format!(
                    "it has {} tokens, but they are not numbered from 0 without gaps (token {token:?} is {id})",
                    self.ids.len()
                ));
            };
            *slot = Some(token.clone());
        }
        Ok(tokens.into_iter().flatten().collect())
    }
}

/// Where `name` is, or would be, in the directory of `source`.
pub(super) fn path(source: &Source, name: &str) -> PathBuf {
    source.catalog.report.sources[0].path.join(name)
}

/// The JSON in a file beside the weights; `None` if there is no such file.
pub(super) fn json(source: &Source, name: &str) -> Result<Option<Value>> {
    let Some(text) = bytes(source, name)? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&text).map_err(|e| {
        let problem = format!("not valid JSON: {}", not_json(&text, &e));
        Error::of_file(Code::BadTokenizer, path(source, name), problem)
    })?;
    Ok(Some(parsed))
}

/// The content of a file beside the weights; `None` if there is no such file.
pub(in crate::ops::merge) fn bytes(source: &Source, wanted: &str) -> Result<Option<Vec<u8>>> {
    let mut aux = source.catalog.aux.iter();
    match aux.find(|entry| entry.name() == wanted) {
        Some(AuxEntry::File { file, .. }) => file.read_all(MOST_BYTES).map(Some),
        Some(AuxEntry::Edited { text, .. }) => Ok(Some(text.to_vec())),
        Some(AuxEntry::Directory { .. }) | None => Ok(None),
    }
}

/// The content of a file beside the weights, if there is one, and where it is or would be.
pub(in crate::ops) fn file(source: &Source, wanted: &str) -> Result<(Option<Vec<u8>>, PathBuf)> {
    Ok((bytes(source, wanted)?, path(source, wanted)))
}

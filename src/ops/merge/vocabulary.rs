//! Rows of embedding and head: each stands for a token, and models may have unlike tokens.
//!
//! Rows are only ever moved: cut off, put in the order of another tokenizer, taken from another
//! model that has the token. Where a row would have to be made up (a mean, zeros), it is an error.

use std::collections::HashMap;

use serde_json::Value;

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::ops::merge::definition::{Definition, ModelId, Vocabulary};
use crate::ops::merge::inputs::{Source, tensor_error};
use crate::shown::Show;
use crate::source::{AuxEntry, not_json};
use crate::tensor::shape_text;

/// What becomes of the rows.
#[derive(Debug)]
pub(super) enum Rows {
    AsIs,
    /// As many as the fewest of any input.
    Fewest,
    /// For each model, its row for each token of the output.
    OfTokens {
        tokens: Vec<String>,
        models: Vec<Vec<Option<u64>>>,
    },
}

/// The longest tokenizer.json that is read.
const MOST_BYTES: u64 = 128 << 20;

impl Rows {
    pub(super) fn new(definition: &Definition, sources: &[Source]) -> Result<Self> {
        match definition.vocabulary {
            Vocabulary::AsIs => Ok(Rows::AsIs),
            Vocabulary::Truncate => Ok(Rows::Fewest),
            Vocabulary::Tokenizer(model) => Self::of_tokens(definition, sources, model),
        }
    }

    fn of_tokens(definition: &Definition, sources: &[Source], model: ModelId) -> Result<Self> {
        let output = tokenizer(&sources[model])?.ok_or_else(|| {
            definition.models[model].place.error(
                Code::BadTokenizer,
                format!(
                    "tokenizer_source: {} has no tokenizer.json",
                    sources[model].name
                ),
            )
        })?;
        let donor = tokenizer(&sources[definition.donor()])?;
        let mut tokens = vec![None; output.len()];
        for (token, id) in &output {
            let free = tokens.get_mut(*id as usize).filter(|slot| slot.is_none());
            let Some(slot) = free else {
                return Err(definition.models[model].place.error(Code::TokenizerMismatch, format!(
                    "tokenizer_source: {} has {} tokens, but they are not numbered from 0 without gaps (token {token:?} is {id})",
                    sources[model].name,
                    output.len()
                )));
            };
            *slot = Some(token.clone());
        }
        let tokens: Vec<String> = tokens.into_iter().flatten().collect();
        let mut models = Vec::with_capacity(sources.len());
        for source in sources {
            let own = tokenizer(source)?;
            let Some(own) = own.as_ref().or(donor.as_ref()) else {
                return Err(Error::of_file(
                    Code::BadTokenizer,
                    source.catalog.report.sources[0].path.join(TOKENIZER_FILE),
                    "tokenizer_source needs the tokens of every model, and there is no such file",
                ));
            };
            let most = source.number("vocab_size").unwrap_or(u64::MAX);
            let rows = tokens.iter().map(|token| match own.get(token) {
                Some(id) if *id >= most => Err(definition.models[model].place.error(Code::TokenizerMismatch, format!(
                    "tokenizer_source: token {token:?} is {id} in {}, whose vocab_size is {most}; it has no row",
                    source.name
                ))),
                id => Ok(id.copied()),
            });
            models.push(rows.collect::<Result<Vec<_>>>()?);
        }
        Ok(Rows::OfTokens { tokens, models })
    }

    /// What the plan tells about rows that are moved.
    pub(super) fn note(&self, definition: &Definition, sources: &[Source]) -> Option<String> {
        match (self, definition.vocabulary) {
            (Rows::Fewest, _) => Some(
                "rows of embedding and head behind the shortest are cut off; this is right only if all models number their common tokens alike".to_owned(),
            ),
            (Rows::OfTokens { tokens, .. }, Vocabulary::Tokenizer(model)) => Some(format!(
                "rows of embedding and head are those of the {} tokens of {}",
                tokens.len(),
                sources[model].name
            )),
            _ => None,
        }
    }

    /// The number of rows, if it does not depend on the tensors.
    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Rows::OfTokens { tokens, .. } => Some(tokens.len()),
            Rows::AsIs | Rows::Fewest => None,
        }
    }

    /// `tensors`, those of `models`, with the rows that the output has.
    pub(super) fn align(
        &self,
        name: &str,
        models: &[ModelId],
        base: Option<ModelId>,
        tensors: Vec<&Tensor>,
    ) -> Result<Vec<Tensor>> {
        let own = |tensors: Vec<&Tensor>| tensors.into_iter().cloned().collect();
        if matches!(self, Rows::AsIs) {
            return Ok(own(tensors));
        }
        let unlike = tensors
            .iter()
            .find(|tensor| tensor.shape.is_empty() || tensor.shape[1..] != tensors[0].shape[1..]);
        if let Some(tensor) = unlike {
            let problem = format!(
                "its shapes differ not in rows alone: {} and {}",
                shape_text(&tensors[0].shape),
                shape_text(&tensor.shape)
            );
            return Err(tensor_error(Code::TokenizerMismatch, tensor, name, problem));
        }
        match self {
            Rows::AsIs => Ok(own(tensors)),
            Rows::Fewest => {
                let rows = tensors
                    .iter()
                    .map(|tensor| tensor.shape[0])
                    .min()
                    .unwrap_or(0);
                tensors
                    .iter()
                    .map(|tensor| cut(name, tensor, 0, rows))
                    .collect()
            }
            Rows::OfTokens {
                tokens,
                models: all,
            } => {
                let of = |input: usize, token: usize| all[models[input]][token];
                let base = base.and_then(|base| models.iter().position(|model| *model == base));
                let mut taken = vec![Vec::with_capacity(tokens.len()); tensors.len()];
                for (token, text) in tokens.iter().enumerate() {
                    let mut having = (0..models.len()).filter(|input| of(*input, token).is_some());
                    let donor = match (having.next(), having.next()) {
                        (None, _) => Err("no model has it"),
                        (Some(only), None) => Ok(only),
                        _ => base
                            .filter(|base| of(*base, token).is_some())
                            .ok_or("several models have it, and which of them is not the base"),
                    };
                    for (input, taken) in taken.iter_mut().enumerate() {
                        let own = of(input, token).map(|row| (input, row));
                        let row = match (own, donor) {
                            (Some(own), _) => own,
                            (None, Ok(donor)) => (donor, of(donor, token).unwrap_or(0)),
                            (None, Err(why)) => {
                                let problem = format!(
                                    "it has no row for token {text:?}, and {why}; ckptfs makes up no rows"
                                );
                                let code = Code::TokenRow;
                                return Err(tensor_error(code, tensors[input], name, problem));
                            }
                        };
                        taken.push(row);
                    }
                }
                let gathered = taken.iter().map(|rows| gather(name, &tensors, rows));
                gathered.collect()
            }
        }
    }
}

/// The tensor of these rows: (tensor, row) each.
fn gather(name: &str, tensors: &[&Tensor], rows: &[(usize, u64)]) -> Result<Tensor> {
    let follows = |a: &(usize, u64), b: &(usize, u64)| a.0 == b.0 && a.1 + 1 == b.1;
    let mut pieces = Vec::new();
    for run in rows.chunk_by(follows) {
        let (input, first) = run[0];
        pieces.push(cut(name, tensors[input], first, run.len() as u64)?);
    }
    let Some(first) = pieces.first() else {
        return Err(tensor_error(
            Code::BadTokenizer,
            tensors[0],
            name,
            "the tokenizer has no tokens",
        ));
    };
    if let Some(other) = pieces.iter().find(|piece| piece.dtype != first.dtype) {
        let problem = format!(
            "its rows would be from here ({}) and from {} ({}), and dtypes cannot be mixed",
            other.dtype,
            first.origin().shown(),
            first.dtype
        );
        return Err(tensor_error(Code::MergeUnlike, other, name, problem));
    }
    let mut shape = first.shape.to_vec();
    shape[0] = rows.len() as u64;
    let pieces: Vec<&Tensor> = pieces.iter().collect();
    Ok(Tensor::joined(&pieces, shape))
}

/// `rows` rows of `tensor` from `first`.
fn cut(name: &str, tensor: &Tensor, first: u64, rows: u64) -> Result<Tensor> {
    let has = tensor.shape[0];
    if (first, rows) == (0, has) {
        return Ok(tensor.clone());
    }
    if first.checked_add(rows).is_none_or(|end| end > has) {
        let problem = format!("it has {has} rows, and its tokenizer numbers more tokens");
        return Err(tensor_error(Code::TokenizerMismatch, tensor, name, problem));
    }
    let mut shape = tensor.shape.to_vec();
    shape[0] = rows;
    Ok(tensor.slice(first * (tensor.len() / has), shape))
}

const TOKENIZER_FILE: &str = "tokenizer.json";

/// Token → id, as tokenizer.json has it; `None` without that file.
fn tokenizer(source: &Source) -> Result<Option<HashMap<String, u64>>> {
    let Some(text) = text(source, TOKENIZER_FILE)? else {
        return Ok(None);
    };
    let path = source.catalog.report.sources[0].path.join(TOKENIZER_FILE);
    let bad = |problem: &str| Error::of_file(Code::BadTokenizer, &path, problem);
    let json: Value = serde_json::from_slice(&text)
        .map_err(|e| bad(&format!("not valid JSON: {}", not_json(&text, &e))))?;
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
                let token = token.ok_or_else(|| bad("a piece of the vocabulary has no text"))?;
                ids.insert(token.to_owned(), id as u64);
            }
        }
        _ => return Err(bad("it has no model.vocab")),
    }
    let added = json.get("added_tokens").and_then(Value::as_array);
    for token in added.into_iter().flatten() {
        let id = token.get("id").and_then(Value::as_u64);
        let content = token.get("content").and_then(Value::as_str);
        let (Some(id), Some(content)) = (id, content) else {
            return Err(bad("an added token has no id or no content"));
        };
        ids.insert(content.to_owned(), id);
    }
    check_added(source, &ids)?;
    Ok(Some(ids))
}

/// tokenizer_config.json may name further tokens, which loaders would add.
fn check_added(source: &Source, ids: &HashMap<String, u64>) -> Result<()> {
    const FILE: &str = "tokenizer_config.json";
    let Some(text) = text(source, FILE)? else {
        return Ok(());
    };
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    let added = json.get("added_tokens_decoder").and_then(Value::as_object);
    for (id, token) in added.into_iter().flatten() {
        let content = token
            .get("content")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if ids.get(content).map(u64::to_string).as_ref() != Some(id) {
            return Err(Error::of_file(
                Code::TokenizerMismatch,
                source.catalog.report.sources[0].path.join(FILE),
                format!(
                    "it says that token {content:?} has the id {id}, and {TOKENIZER_FILE} does not; tokenizer_source needs to know the row of each token"
                ),
            ));
        }
    }
    Ok(())
}

fn text(source: &Source, wanted: &str) -> Result<Option<Vec<u8>>> {
    let found = source.catalog.aux.iter().find_map(|entry| match entry {
        AuxEntry::File { name, file } if name == wanted => Some(file),
        _ => None,
    });
    found.map(|file| file.read_all(MOST_BYTES)).transpose()
}

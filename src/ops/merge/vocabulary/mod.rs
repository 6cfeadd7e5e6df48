//! Rows of embedding and head: each is one token's, and models may have unlike tokens.
//!
//! | file | does |
//! |---|---|
//! | `tokens` | the tokens of a model |
//! | `output` | the tokenizer of the result |
//! | `rows` | rows of a tensor, in the order of its tokens |

mod output;
mod rows;
mod tokens;

use std::collections::HashMap;

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result, Warning};
use crate::ops::merge::definition::{
    Definition, ModelId, TokenName, TokenRow, TokenizerChoice, Vocabulary,
};
use crate::ops::merge::inputs::{Source, tensor_error};
use crate::ops::merge::vocabulary::output::{Output, rows_of};
use crate::ops::merge::vocabulary::rows::{Rule, TokenRows, cut};
pub(super) use crate::ops::merge::vocabulary::tokens::bytes;
pub(in crate::ops) use crate::ops::merge::vocabulary::tokens::file;
use crate::ops::merge::vocabulary::tokens::{TOKENIZER_FILE, Tokens, path};
use crate::tensor::{Dtype, shape_text};
use crate::text::listing;

/// A file's name and its content.
type ChangedFile = (&'static str, Vec<u8>);

/// What becomes of the rows.
#[derive(Debug)]
pub(super) enum Rows {
    AsIs,
    /// As many as the fewest of any input.
    Fewest,
    OfTokens(Box<Aligned>),
}

/// Rows in the order of a tokenizer.
#[derive(Debug)]
pub(super) struct Aligned {
    rows: TokenRows,
    output: Output,
    /// Computed rows are computed in it.
    dtype: Option<Dtype>,
    is_union: bool,
}

impl Rows {
    pub(super) fn new(definition: &Definition, sources: &[Source]) -> Result<Self> {
        match &definition.vocabulary {
            Vocabulary::AsIs => Ok(Rows::AsIs),
            Vocabulary::Truncate => Ok(Rows::Fewest),
            Vocabulary::Tokenizer(choice) => Self::of_tokens(choice, definition, sources),
        }
    }

    fn of_tokens(
        choice: &TokenizerChoice,
        definition: &Definition,
        sources: &[Source],
    ) -> Result<Self> {
        let known = sources.iter().map(Tokens::of).collect::<Result<Vec<_>>>()?;
        let output = Output::new(choice, definition, sources, &known)?;
        let donor = known[definition.donor()].as_ref();
        let of = |model: usize| {
            known[model].as_ref().or(donor).ok_or_else(|| {
                Error::of_file(
                    Code::BadTokenizer,
                    path(&sources[model], TOKENIZER_FILE),
                    "tokenizer_source needs the tokens of every model, and there is no such file",
                )
            })
        };
        let mut models = Vec::with_capacity(sources.len());
        for (model, source) in sources.iter().enumerate() {
            let (own, count) = (of(model)?, rows_of(source));
            let row = |token: &String| own.ids.get(token).copied().filter(|id| *id < count);
            models.push(output.tokens.iter().map(row).collect::<Vec<_>>());
        }
        let mut rules = HashMap::new();
        let ids: HashMap<&str, usize> = (output.tokens.iter().map(String::as_str))
            .zip(0..)
            .collect();
        for rule in &choice.tokens {
            let Some(&id) = ids.get(rule.token.as_str()) else {
                let problem = format!("{:?} cannot be a token", rule.token);
                return Err(rule.place.error(Code::TokenRow, problem));
            };
            let no_row = |model: ModelId, token: &str| {
                let problem = format!("{} has no row for token {token:?}", sources[model].name);
                rule.place.error(Code::TokenRow, problem)
            };
            let source = match &rule.source {
                // The rules for all tokens.
                None => continue,
                Some(TokenRow::Zero) => None,
                Some(TokenRow::Model(model)) => {
                    let row = models[*model][id];
                    Some((*model, row.ok_or_else(|| no_row(*model, &rule.token))?))
                }
                Some(TokenRow::Token(model, TokenName::Id(row))) => Some((*model, *row)),
                Some(TokenRow::Token(model, TokenName::Text(token))) => {
                    let row = of(*model)?.ids.get(token);
                    Some((*model, *row.ok_or_else(|| no_row(*model, token))?))
                }
            };
            let force = rule.force;
            rules.insert(id, Rule { source, force });
        }
        let tokens = output.tokens.len() as u64;
        let count = match choice.pad_to_multiple_of {
            Some(multiple) => tokens.checked_next_multiple_of(multiple).ok_or_else(|| {
                let problem = format!("no multiple of {multiple} is a number of rows");
                choice.place.error(Code::OverLimit, problem)
            })?,
            None => tokens,
        };
        Ok(Rows::OfTokens(Box::new(Aligned {
            rows: TokenRows {
                tokens: output.tokens.clone(),
                models,
                rules,
                count,
            },
            output,
            dtype: definition.dtype,
            is_union: choice.source == crate::ops::merge::definition::TokenizerSource::Union,
        })))
    }

    /// What the plan tells about rows that are moved.
    pub(super) fn note(&self, sources: &[Source]) -> Option<String> {
        match self {
            Rows::Fewest => Some(
                "rows of embedding and head behind the shortest are cut off; this is right only if all models number their common tokens alike".to_owned(),
            ),
            Rows::OfTokens(aligned) => {
                let (count, name) = (aligned.rows.tokens.len(), &sources[aligned.output.model].name);
                let whose = match aligned.is_union {
                    true => format!("all models: those of {name}, then those that it lacks"),
                    false => name.clone(),
                };
                let more = aligned.rows.count - count as u64;
                let more = match more {
                    0 => String::new(),
                    more => format!(", and {more} more that are their mean"),
                };
                Some(format!(
                    "rows of embedding and head are those of the {count} tokens of {whose}{more}"
                ))
            }
            Rows::AsIs => None,
        }
    }

    /// The tokens that none of `models` has a row for.
    pub(super) fn warning(&self, models: &[ModelId]) -> Option<Warning> {
        let Rows::OfTokens(aligned) = self else {
            return None;
        };
        let rows = &aligned.rows;
        let is_nowhere = |token: &usize| {
            let mut models = models.iter();
            !rows.rules.contains_key(token)
                && models.all(|model| rows.models[*model][*token].is_none())
        };
        let nowhere: Vec<&String> = (0..rows.tokens.len())
            .filter(is_nowhere)
            .map(|token| &rows.tokens[token])
            .collect();
        (!nowhere.is_empty()).then(|| {
            let problem = format!(
                "no model has a row for these tokens, which are zeros: {}",
                listing(&nowhere)
            );
            Warning::new(Code::TokenRow, problem)
        })
    }

    /// The number of rows, if it does not depend on the tensors.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Rows::OfTokens(aligned) => Some(aligned.rows.count),
            Rows::AsIs | Rows::Fewest => None,
        }
    }

    /// The model that the tokenizer is of, and its files that are changed.
    pub(super) fn tokenizer(&self) -> Option<(ModelId, &[ChangedFile])> {
        match self {
            Rows::OfTokens(aligned) => Some((aligned.output.model, &aligned.output.changed)),
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
        if matches!(self, Rows::AsIs) {
            return Ok(tensors.into_iter().cloned().collect());
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
            Rows::AsIs => unreachable!("they are taken as they are"),
            Rows::Fewest => {
                let counts = tensors.iter().map(|tensor| tensor.shape[0]);
                let fewest = counts.min().unwrap_or(0);
                let tensors = tensors.iter();
                tensors.map(|tensor| cut(name, tensor, 0, fewest)).collect()
            }
            Rows::OfTokens(aligned) => {
                let dtype = aligned.dtype;
                aligned.rows.align(name, models, base, &tensors, dtype)
            }
        }
    }
}

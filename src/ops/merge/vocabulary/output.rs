//! The tokenizer of the result: one of the models', which may lose tokens that have no row, and get tokens
//! of other models and new ones.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::error::{Code, Error, Result};
use crate::ops::merge::definition::{Definition, ModelId, TokenizerChoice, TokenizerSource};
use crate::ops::merge::inputs::Source;
use crate::ops::merge::vocabulary::tokens::{CONFIG_FILE, TOKENIZER_FILE, Tokens, json, path};
use crate::ops::tokenizer::Tokenizer;

/// The tokenizer of the result.
#[derive(Debug)]
pub(super) struct Output {
    /// Whose it was.
    pub(super) model: ModelId,
    /// Every token by its id.
    pub(super) tokens: Vec<String>,
    /// The files that are not those of the model.
    pub(super) changed: Vec<(&'static str, Vec<u8>)>,
}

impl Output {
    /// The tokenizer that `choice` is about; `known` are the tokenizers of all models.
    pub(super) fn new(
        choice: &TokenizerChoice,
        definition: &Definition,
        sources: &[Source],
        known: &[Option<Tokens>],
    ) -> Result<Self> {
        let model = match choice.source {
            TokenizerSource::Union | TokenizerSource::Base => definition.donor(),
            TokenizerSource::Model(model) => model,
        };
        let source = &sources[model];
        let error = |code: Code, problem: String| {
            choice
                .place
                .error(code, format!("the tokenizer of {}: {problem}", source.name))
        };
        let Some(own) = &known[model] else {
            let problem = format!("it has no {TOKENIZER_FILE}");
            return Err(error(Code::BadTokenizer, problem));
        };
        let unused = match choice.source {
            TokenizerSource::Model(_) => HashSet::new(),
            TokenizerSource::Union | TokenizerSource::Base => unused(own, rows_of(source)),
        };
        let mut more = Vec::new();
        if choice.source == TokenizerSource::Union {
            let has = |token: &str| own.ids.contains_key(token) && !unused.contains(token);
            more = of_others(definition, sources, known, &has);
        }
        let named = choice.tokens.iter();
        let named = named.map(|rule| AddedToken::from(rule.token.clone(), false));
        more.extend(named);
        let mut seen: HashSet<String> = HashSet::new();
        more.retain(|token| {
            let is_known =
                own.ids.contains_key(&token.content) && !unused.contains(token.content.as_str());
            !is_known && !token.content.is_empty() && seen.insert(token.content.clone())
        });
        if unused.is_empty() && more.is_empty() {
            let tokens = own
                .in_order()
                .map_err(|problem| error(Code::TokenizerMismatch, problem))?;
            return Ok(Output {
                model,
                tokens,
                changed: Vec::new(),
            });
        }
        let file = path(source, TOKENIZER_FILE);
        let mut described = json(source, TOKENIZER_FILE)?.unwrap_or_default();
        if !unused.is_empty() {
            strip(&mut described, &unused)
                .map_err(|problem| Error::of_file(Code::BadTokenizer, &file, problem))?;
        }
        let mut text = pretty(&described);
        if !more.is_empty() {
            let mut tokenizer = Tokenizer::parse(&text, &file)?;
            tokenizer.add(more)?;
            text = tokenizer.text()?;
            described = serde_json::from_slice(&text)
                .map_err(|e| Error::of_file(Code::BadTokenizer, &file, e.to_string()))?;
        }
        let made = Tokens::parse(&described, &file)?;
        let tokens = made
            .in_order()
            .map_err(|problem| error(Code::TokenizerMismatch, problem))?;
        let mut changed = vec![(TOKENIZER_FILE, text)];
        if let Some(mut config) = json(source, CONFIG_FILE)?
            && let Some(decoder) = config.get_mut("added_tokens_decoder")
        {
            *decoder = decoder_of(&made);
            changed.push((CONFIG_FILE, pretty(&config)));
        }
        Ok(Output {
            model,
            tokens,
            changed,
        })
    }
}

/// The number of rows that a model says to have.
pub(super) fn rows_of(source: &Source) -> u64 {
    source.number("vocab_size").unwrap_or(u64::MAX)
}

/// The tokens that have no row among so many.
fn unused(tokens: &Tokens, rows: u64) -> HashSet<&str> {
    let unused = tokens.ids.iter().filter(|(_, id)| **id >= rows);
    unused.map(|(token, _)| token.as_str()).collect()
}

/// What the other models have and the first does not: of each, in order, tokens of its vocabulary by id; then
/// of each the tokens that were added to it. All that have a row.
fn of_others(
    definition: &Definition,
    sources: &[Source],
    known: &[Option<Tokens>],
    has: &dyn Fn(&str) -> bool,
) -> Vec<AddedToken> {
    let models = definition.merged_models();
    let models = models.iter().filter_map(|model| {
        let tokens = known[*model].as_ref()?;
        Some((tokens, rows_of(&sources[*model])))
    });
    let (mut plain, mut added) = (Vec::new(), Vec::new());
    for (tokens, rows) in models {
        let contents = tokens.added.iter();
        let contents: HashSet<&str> = contents
            .filter_map(|(_, token)| token.get("content")?.as_str())
            .collect();
        let mut own: Vec<(&String, &u64)> = tokens
            .ids
            .iter()
            .filter(|(token, id)| **id < rows && !has(token) && !contents.contains(token.as_str()))
            .collect();
        own.sort_by_key(|(_, id)| **id);
        plain.extend(own.into_iter().map(|(token, _)| token.clone()));
        let with_row = tokens.added.iter().filter(|(id, _)| *id < rows);
        let with_row = with_row.filter_map(|(_, token)| parsed(token));
        added.extend(with_row.filter(|token| !has(&token.content)));
    }
    let is_added: HashSet<&str> = added.iter().map(|token| token.content.as_str()).collect();
    plain.retain(|token| !is_added.contains(token.as_str()));
    let plain = plain
        .into_iter()
        .map(|token| AddedToken::from(token, false));
    plain.chain(added.iter().cloned()).collect()
}

fn parsed(token: &Value) -> Option<AddedToken> {
    let is = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
    let content = token.get("content")?.as_str()?;
    Some(
        AddedToken::from(content, is("special"))
            .single_word(is("single_word"))
            .lstrip(is("lstrip"))
            .rstrip(is("rstrip"))
            .normalized(is("normalized")),
    )
}

/// Takes `tokens` out of a tokenizer, and the merges that make them.
fn strip(tokenizer: &mut Value, tokens: &HashSet<&str>) -> std::result::Result<(), String> {
    let model = tokenizer.pointer("/model/type").and_then(Value::as_str);
    if model.is_some_and(|model| model != "BPE") {
        return Err(format!(
            "{} of its tokens have no row, and only from tokenizers of the type BPE can they be taken out",
            tokens.len()
        ));
    }
    let is_kept = |token: &str| !tokens.contains(token);
    if let Some(added) = tokenizer
        .get_mut("added_tokens")
        .and_then(Value::as_array_mut)
    {
        added.retain(|token| token["content"].as_str().is_none_or(is_kept));
    }
    if let Some(vocabulary) = tokenizer
        .pointer_mut("/model/vocab")
        .and_then(Value::as_object_mut)
    {
        vocabulary.retain(|token, _| is_kept(token));
    }
    if let Some(merges) = tokenizer
        .pointer_mut("/model/merges")
        .and_then(Value::as_array_mut)
    {
        merges.retain(|merge| match merge {
            Value::String(pair) => pair.split(' ').all(is_kept),
            Value::Array(pair) => pair.iter().all(|part| part.as_str().is_none_or(is_kept)),
            _ => true,
        });
    }
    Ok(())
}

/// `added_tokens_decoder` of tokenizer_config.json.
fn decoder_of(tokens: &Tokens) -> Value {
    let added = tokens.added.iter().map(|(id, token)| {
        const KEYS: [&str; 6] = [
            "content",
            "lstrip",
            "normalized",
            "rstrip",
            "single_word",
            "special",
        ];
        let keys = KEYS.iter().filter_map(|key| Some((key, token.get(*key)?)));
        let token: Map<String, Value> = keys
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        (id.to_string(), Value::Object(token))
    });
    Value::Object(added.collect())
}

pub(super) fn pretty(json: &Value) -> Vec<u8> {
    format!("{json:#}\n").into_bytes()
}

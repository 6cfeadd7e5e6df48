//! The tokens of a model, and what each of them is.

use std::collections::HashMap;

use super::form::AddedToken;
use crate::error::Result;
use crate::format::gguf::Value;
use crate::ops::gguf::source::metadata::Metadata;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// The most tokens that are read.
const MAX_TOKENS: usize = 1 << 22;

/// What a token is, by its number in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Control,
    UserDefined,
    Unused,
    /// A piece of text, a byte, or the unknown token.
    Piece,
}

/// Every token, by its id.
#[derive(Debug)]
pub(super) struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<TokenType>,
    ids: HashMap<String, usize>,
}

impl Vocabulary {
    /// The vocabulary in `metadata`. Where `marks_spaces`, pieces have U+2581 in place of spaces, and tokens of
    /// spaces alone, which GGUF spells as they are, get it back.
    ///
    /// # Errors
    /// If it is missing, not UTF-8, or has a token twice.
    pub(super) fn read(metadata: Metadata, marks_spaces: bool) -> Result<Self> {
        let strings = metadata
            .get(TOKENS)
            .and_then(|value| value.as_array()?.strings());
        let Some(strings) = strings else {
            return Err(metadata.bad(TOKENS, "is missing, or no array of texts"));
        };
        let count = strings.len();
        if count > MAX_TOKENS {
            let problem = format!("has {count} tokens; at most {MAX_TOKENS} are read");
            return Err(metadata.bad(TOKENS, &problem));
        }
        let types = types(metadata, count)?;
        let mut tokens = Vec::with_capacity(count);
        let mut ids = HashMap::with_capacity(count);
        for (id, bytes) in strings.iter().enumerate() {
            let Ok(token) = std::str::from_utf8(bytes) else {
                let problem = format!("has token {id}, which is not valid UTF-8");
                return Err(metadata.bad(TOKENS, &problem));
            };
            let token = if marks_spaces && is_blank(token) {
                token.replace(' ', "\u{2581}")
            } else {
                token.to_owned()
            };
            if let Some(first) = ids.insert(token.clone(), id)
                && types[id] != TokenType::Unused
            {
                let problem = format!("has {token:?} twice, as {first} and {id}");
                return Err(metadata.bad(TOKENS, &problem));
            }
            tokens.push(token);
        }
        Ok(Vocabulary { tokens, types, ids })
    }

    /// The token `id`, which is the value of `key`.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn token(&self, metadata: Metadata, key: &str, id: u64) -> Result<&str> {
        let token = usize::try_from(id).ok().and_then(|id| self.tokens.get(id));
        let problem = || format!("is {id}, and there are {} tokens", self.tokens.len());
        let token = token.ok_or_else(|| metadata.bad(key, &problem()))?;
        Ok(token)
    }

    /// The id of `token`.
    pub(super) fn id(&self, token: &str) -> Option<usize> {
        self.ids.get(token).copied()
    }

    /// Every token that the model has, with its id: not those that only fill up the rows of the embedding.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (&str, usize)> {
        let tokens = self.tokens.iter().enumerate();
        let used = tokens.filter(|&(id, token)| !self.is_padding(id, token));
        used.map(|(id, token)| (&**token, id))
    }

    fn is_padding(&self, id: usize, token: &str) -> bool {
        self.types[id] == TokenType::Unused && token.starts_with("[PAD")
    }

    /// The tokens that are found in text as they are.
    pub(super) fn added(&self) -> impl Iterator<Item = AddedToken<'_>> {
        let tokens = self.tokens.iter().enumerate();
        tokens.filter_map(|(id, content)| {
            let special = match self.types[id] {
                TokenType::Control => true,
                // In text, spaces are marked before they are looked for.
                TokenType::UserDefined if !content.starts_with('\u{2581}') => false,
                _ => return None,
            };
            Some(AddedToken {
                id,
                content,
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: false,
                special,
            })
        })
    }
}

/// Whether a token is of spaces alone.
fn is_blank(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte == b' ')
}

fn types(metadata: Metadata, count: usize) -> Result<Vec<TokenType>> {
    let Some(value) = metadata.get(TYPES) else {
        return Ok(vec![TokenType::Piece; count]);
    };
    let numbers = value.as_array().and_then(|array| array.numbers());
    let Some(numbers) = numbers.filter(|numbers| numbers.len() == count) else {
        let problem = "is no array of as many numbers as there are tokens";
        return Err(metadata.bad(TYPES, problem));
    };
    let types = numbers.values().map(|value| match Value::as_u64(&value) {
        Some(3) => TokenType::Control,
        Some(4) => TokenType::UserDefined,
        Some(5) => TokenType::Unused,
        _ => TokenType::Piece,
    });
    Ok(types.collect())
}

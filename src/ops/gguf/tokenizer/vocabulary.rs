//! Tokens and their types, and the files that they come from.

use std::path::Path;

use crate::error::{Code, Error};
use crate::format::gguf::Array;
use crate::ops::gguf::metadata::KeyWriter;

pub(super) const TOKENIZER_MODEL: &str = "tokenizer.model";
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
pub(super) const ADDED_FILE: &str = "added_tokens.json";

/// What a token is, as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A vocabulary.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    pub tokens: Vec<Vec<u8>>,
    /// One for each token, or none at all.
    pub scores: Vec<f32>,
    pub types: Vec<i32>,
}

impl Vocabulary {
    pub(super) fn push(&mut self, token: impl Into<Vec<u8>>, kind: TokenType) {
        self.tokens.push(token.into());
        self.types.push(kind as i32);
    }

    pub(super) fn write(&self, keys: &mut KeyWriter, model: &str, pre: &str) {
        keys.string("tokenizer.ggml.model", model);
        keys.string("tokenizer.ggml.pre", pre);
        keys.array(
            "tokenizer.ggml.tokens",
            self.tokens.iter().collect::<Array>(),
        );
        keys.numbers("tokenizer.ggml.scores", &self.scores);
        keys.numbers("tokenizer.ggml.token_type", &self.types);
    }
}

pub(super) fn no_tokenizer(directory: &Path) -> Error {
    let problem =
        format!("GGUF needs {TOKENIZER_MODEL} or {TOKENIZER_FILE}, and the view has neither");
    Error::of_file(Code::BadTokenizer, directory, problem)
}

/// Whether a token looks like one that controls, though it is not marked so.
fn looks_special(token: &str) -> bool {
    let is_between = |start: &str, end: &str| token.starts_with(start) && token.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&token)
        || is_between("<|", "|>")
        || is_between("<\u{ff5c}", "\u{ff5c}>")
        || is_between("<unused", ">")
}

/// What an added token is.
pub(super) fn added_type(token: &str, is_special: bool) -> TokenType {
    match is_special || looks_special(token) {
        true => TokenType::Control,
        false => TokenType::UserDefined,
    }
}

/// A token that users added, with spaces as llama.cpp wants them.
pub(super) fn user_defined(token: &str) -> String {
    token.replace('\u{2581}', " ")
}

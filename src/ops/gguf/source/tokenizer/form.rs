//! What tokenizer.json says, as a structure.

use serde::Serialize;
use serde_json::Value;

/// tokenizer.json, as the library `tokenizers` reads it.
#[derive(Debug, Serialize)]
pub(super) struct Tokenizer<'a> {
    pub version: &'static str,
    pub truncation: Value,
    pub padding: Value,
    pub added_tokens: Vec<AddedToken<'a>>,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub post_processor: Value,
    pub decoder: Value,
    pub model: Model<'a>,
}

/// A token that is found in text before that is cut.
#[derive(Debug, Serialize)]
pub(super) struct AddedToken<'a> {
    pub id: usize,
    pub content: &'a str,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    pub normalized: bool,
    pub special: bool,
}

/// Byte-pair encoding.
#[derive(Debug, Serialize)]
pub(super) struct Model<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub dropout: Value,
    pub unk_token: Option<&'a str>,
    pub continuing_subword_prefix: Value,
    pub end_of_word_suffix: Value,
    pub fuse_unk: bool,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
    pub vocab: Pieces<'a>,
    pub merges: Vec<(&'a str, &'a str)>,
}

/// Pieces and their ids.
#[derive(Debug)]
pub(super) struct Pieces<'a>(pub Vec<(&'a str, usize)>);

impl Serialize for Pieces<'_> {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// How text becomes pieces, by the kind of a tokenizer.
pub(super) struct Kind<'a> {
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub decoder: Value,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
    /// Whether a text begins with the token of beginnings, where metadata does not say.
    pub adds_bos: bool,
    /// Whether what is unknown is the unknown token; else every text has pieces.
    pub has_unknown: bool,
    pub merges: Vec<(&'a str, &'a str)>,
}

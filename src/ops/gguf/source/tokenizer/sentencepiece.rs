//! Tokenizers of SentencePiece (BPE): pieces of text in which spaces are U+2581, and bytes for what no piece has.

use serde_json::{Value, json};

use super::form::Kind;
use super::merges;
use super::vocabulary::Vocabulary;
use crate::error::Result;
use crate::ops::gguf::source::metadata::Metadata;

const SCORES: &str = "tokenizer.ggml.scores";

/// # Errors
/// If there are no scores, which say the order of merges.
pub(super) fn kind<'a>(metadata: Metadata<'a>, vocabulary: &'a Vocabulary) -> Result<Kind<'a>> {
    let is_gemma = metadata.architecture.name.starts_with("gemma");
    let merges = match merges::listed(metadata)? {
        Some(listed) => listed,
        // Gemma's scores do not follow the order of its merges, which is that of its pieces.
        None if is_gemma => merges::implied(metadata, vocabulary, |id| id as f64)?,
        None => {
            let scores = scores(metadata)?;
            let rank = |id: usize| scores.get(id).map_or(f64::INFINITY, |score| -score);
            merges::implied(metadata, vocabulary, rank)?
        }
    };
    let prefix = metadata.find_bool("tokenizer.ggml.add_space_prefix")?;
    let has_prefix = prefix.unwrap_or(!is_gemma);
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if has_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let (normalizer, pre_tokenizer) = match has_prefix {
        // A space is put before a text, and before none of what follows a special token in it.
        true => (
            Value::Null,
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false}),
        ),
        false => (replace, Value::Null),
    };
    Ok(Kind {
        normalizer,
        pre_tokenizer,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        byte_fallback: true,
        ignore_merges: false,
        adds_bos: true,
        has_unknown: true,
        merges,
    })
}

fn scores(metadata: Metadata) -> Result<Vec<f64>> {
    let numbers = metadata
        .get(SCORES)
        .and_then(|value| value.as_array()?.numbers());
    let scores = numbers.map(|numbers| numbers.values().map(|value| value.as_f64()));
    let scores = scores.and_then(|mut scores| scores.by_ref().collect::<Option<Vec<f64>>>());
    scores.ok_or_else(|| {
        metadata.unmade(
            "tokenizer.json",
            "tokenizer.ggml.scores is missing, or no array of floating-point numbers",
        )
    })
}

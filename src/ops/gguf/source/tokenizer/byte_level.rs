//! Tokenizers whose pieces are bytes, spelled by characters that can be seen: GPT-2's and its successors.

use serde_json::{Value, json};

use super::form::Kind;
use super::merges;
use super::splits::Splits;
use super::vocabulary::Vocabulary;
use crate::error::Result;
use crate::ops::gguf::source::metadata::Metadata;

/// # Errors
/// If how text is cut is not known, or there are no merges.
pub(super) fn kind<'a>(metadata: Metadata<'a>, _vocabulary: &'a Vocabulary) -> Result<Kind<'a>> {
    let Some(merges) = merges::listed(metadata)? else {
        let problem = "tokenizer.ggml.merges is missing";
        return Err(metadata.unmade("tokenizer.json", problem));
    };
    let name = metadata.find_text("tokenizer.ggml.pre")?;
    let Some(splits) = name.and_then(Splits::named) else {
        let problem = match name {
            Some(name) => format!(
                "how tokenizer.ggml.pre {name:?} cuts text is not known, only {}",
                Splits::names().collect::<Vec<_>>().join(", ")
            ),
            None => "tokenizer.ggml.pre, which says how text is cut, is missing".to_owned(),
        };
        return Err(metadata.unmade("tokenizer.json", &problem));
    };
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let mut steps: Vec<Value> = Vec::new();
    if splits.single_digits {
        steps.push(json!({"type": "Digits", "individual_digits": true}));
    }
    steps.extend(splits.patterns.iter().map(|pattern| {
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
    }));
    steps.push(byte_level(splits.patterns.is_empty()));
    let normalizer = match splits.composes {
        true => json!({"type": "NFC"}),
        false => Value::Null,
    };
    Ok(Kind {
        normalizer,
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": steps}),
        decoder: byte_level(true),
        byte_fallback: false,
        ignore_merges: splits.ignores_merges,
        adds_bos: splits.adds_bos,
        has_unknown: false,
        merges,
    })
}

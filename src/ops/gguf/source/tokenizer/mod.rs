//! tokenizer.json and tokenizer_config.json, made of metadata: a vocabulary, its merges, and how text is cut
//! before they are applied.

mod byte_level;
mod form;
mod merges;
mod sentencepiece;
mod splits;
mod vocabulary;

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::ops::gguf::source::metadata::Metadata;
use form::{Model, Pieces, Tokenizer};
use vocabulary::Vocabulary;

/// Special tokens, as tokenizer_config.json and metadata call them.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// tokenizer.json and tokenizer_config.json.
///
/// # Errors
/// If there is no tokenizer, or one of a kind that cannot be written so.
pub(super) fn files(metadata: Metadata) -> Result<(Vec<u8>, Map<String, Value>)> {
    let model = metadata.find_text("tokenizer.ggml.model")?;
    let vocabulary = match model {
        Some("gpt2") => Vocabulary::read(metadata, false)?,
        Some("llama") => Vocabulary::read(metadata, true)?,
        Some(other) => {
            let problem = format!("tokenizers of the kind {other:?} are not known");
            return Err(metadata.unmade("tokenizer.json", &problem));
        }
        None => {
            let problem = "tokenizer.ggml.model is missing";
            return Err(metadata.unmade("tokenizer.json", problem));
        }
    };
    let kind = match model {
        Some("gpt2") => byte_level::kind(metadata, &vocabulary)?,
        _ => sentencepiece::kind(metadata, &vocabulary)?,
    };
    let mut config = Map::new();
    config.insert(
        "tokenizer_class".to_owned(),
        "PreTrainedTokenizerFast".into(),
    );
    let mut special = Map::new();
    for (key, gguf) in SPECIAL {
        if let Some(id) = metadata.find_number(gguf)? {
            let token = vocabulary.token(metadata, gguf, id)?;
            special.insert(key.to_owned(), token.into());
        }
    }
    let adds = |key, default| Ok::<_, crate::Error>(metadata.find_bool(key)?.unwrap_or(default));
    let adds_bos = adds("tokenizer.ggml.add_bos_token", kind.adds_bos)?;
    let adds_eos = adds("tokenizer.ggml.add_eos_token", false)?;
    let around = [(adds_bos, "bos_token"), (adds_eos, "eos_token")];
    let mut ends = [None, None];
    for (end, (is_added, key)) in ends.iter_mut().zip(around) {
        if let (true, Some(token)) = (is_added, special.get(key).and_then(Value::as_str)) {
            let id = vocabulary.id(token);
            *end = id.map(|id| (token.to_owned(), id));
        }
    }
    let unknown = special.get("unk_token").and_then(Value::as_str);
    let tokenizer = Tokenizer {
        version: "1.0",
        truncation: Value::Null,
        padding: Value::Null,
        added_tokens: vocabulary.added().collect(),
        normalizer: kind.normalizer,
        pre_tokenizer: kind.pre_tokenizer,
        post_processor: template(&ends),
        decoder: kind.decoder,
        model: Model {
            kind: "BPE",
            dropout: Value::Null,
            unk_token: unknown.filter(|_| kind.has_unknown),
            continuing_subword_prefix: Value::Null,
            end_of_word_suffix: Value::Null,
            fuse_unk: kind.has_unknown,
            byte_fallback: kind.byte_fallback,
            ignore_merges: kind.ignore_merges,
            vocab: Pieces(vocabulary.pieces().collect()),
            merges: kind.merges,
        },
    };
    let text = serde_json::to_vec(&tokenizer).expect("texts and numbers are JSON");
    config.extend(special);
    config.insert("add_bos_token".to_owned(), adds_bos.into());
    config.insert("add_eos_token".to_owned(), adds_eos.into());
    config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    let context = metadata.number(".context_length")?;
    config.insert("model_max_length".to_owned(), context.into());
    if let Some(template) = metadata.find_text("tokenizer.chat_template")? {
        config.insert("chat_template".to_owned(), template.into());
    }
    Ok((text, config))
}

/// What puts tokens before and after a text.
fn template(ends: &[Option<(String, usize)>; 2]) -> Value {
    if ends.iter().all(Option::is_none) {
        return Value::Null;
    }
    let special = |id: &str, kind: usize| json!({"SpecialToken": {"id": id, "type_id": kind}});
    let sequence = |name: &str, kind: usize| {
        let mut parts = Vec::new();
        parts.extend(ends[0].iter().map(|(token, _)| special(token, kind)));
        parts.push(json!({"Sequence": {"id": name, "type_id": kind}}));
        parts.extend(ends[1].iter().map(|(token, _)| special(token, kind)));
        parts
    };
    let single = sequence("A", 0);
    let pair = [sequence("A", 0), sequence("B", 1)].concat();
    let tokens = ends.iter().flatten().map(|(token, id)| {
        let entry = json!({"id": token, "ids": [id], "tokens": [token]});
        (token.clone(), entry)
    });
    let tokens: Map<String, Value> = tokens.collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
}

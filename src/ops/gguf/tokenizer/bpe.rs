//! The vocabulary and the merges of BPE.

use serde_json::Value as Json;

use crate::error::Result;
use crate::ops::gguf::files::Files;
use crate::ops::gguf::metadata::Hparams;
use crate::ops::gguf::tokenizer::fast::Fast;
use crate::ops::gguf::tokenizer::vocabulary::{TokenType, Vocabulary, added_type, user_defined};

/// The most tokens that a model may have.
const MAX_TOKENS: u64 = 1 << 24;

/// All tokens up to config.json's `vocab_size`; those that the tokenizer lacks stand for nothing.
pub(super) fn vocabulary(fast: &Fast, hparams: &Hparams) -> Result<Vocabulary> {
    let size = hparams.whole("vocab_size").unwrap_or(fast.ids.len() as u64);
    if size > MAX_TOKENS {
        let problem = format!("vocab_size is {size}; at most {MAX_TOKENS} are read");
        return Err(fast.error(problem));
    }
    let mut tokens: Vec<Option<&str>> = vec![None; size as usize];
    for (token, id) in &fast.ids {
        let Some(slot) = tokens.get_mut(*id as usize) else {
            let problem =
                format!("its token {token:?} is {id}, but vocab_size in config.json is {size}");
            return Err(fast.error(problem));
        };
        *slot = Some(token);
    }
    let mut vocabulary = Vocabulary::default();
    for (id, token) in tokens.into_iter().enumerate() {
        let Some(token) = token else {
            vocabulary.push(format!("[PAD{id}]"), TokenType::Unused);
            continue;
        };
        let Some(added) = fast.added.get(&(id as u32)) else {
            vocabulary.push(token, TokenType::Normal);
            continue;
        };
        // llama.cpp takes these for normalized.
        let token = match added.is_normalized {
            true => token.to_owned(),
            false => fast.text(&fast.ids(token, false)?)?,
        };
        match added_type(&token, added.is_special) {
            TokenType::Control => vocabulary.push(token, TokenType::Control),
            kind => vocabulary.push(user_defined(&token), kind),
        }
    }
    Ok(vocabulary)
}

/// The merges, each as two pieces with a space between.
pub(super) fn merges(fast: &Fast, files: Files) -> Result<Vec<String>> {
    let merges = fast.json.get("model").and_then(|model| model.get("merges"));
    let merges = merges
        .and_then(Json::as_array)
        .map_or(&[][..], Vec::as_slice);
    if merges.is_empty() {
        return of_text(files);
    }
    let merges = merges.iter().map(|merge| match merge {
        Json::String(text) => Some(text.clone()),
        Json::Array(pieces) => {
            let pieces = pieces.iter().map(|piece| {
                // A space in a piece would end it.
                Some(piece.as_str()?.replace(' ', "\u{120}"))
            });
            let pieces: Option<Vec<String>> = pieces.collect();
            Some(pieces?.join(" "))
        }
        _ => None,
    });
    let merges: Option<Vec<String>> = merges.collect();
    merges.ok_or_else(|| fast.error("its merges are neither texts nor pairs".to_owned()))
}

/// Those of merges.txt.
fn of_text(files: Files) -> Result<Vec<String>> {
    let text = files.text("merges.txt")?.unwrap_or_default();
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(i, line)| *i > 0 || !line.trim().starts_with('#'));
    let pairs = lines.filter_map(|(_, line)| {
        let pieces: Vec<&str> = line.split_whitespace().collect();
        match pieces[..] {
            [first, second] => Some(format!("{first} {second}")),
            _ => None,
        }
    });
    Ok(pairs.collect())
}

//! tokenizer.json, read as JSON and by the crate `tokenizers`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde_json::{Map, Value as Json};
use tokenizers::Tokenizer;

use crate::error::{Code, Error, Result};
use crate::ops::gguf::files::Files;
use crate::ops::gguf::tokenizer::vocabulary::{
    TOKENIZER_FILE, TokenType, Vocabulary, no_tokenizer,
};
use crate::ops::tokenizer::guarded;

/// A tokenizer.
pub(super) struct Fast {
    pub(super) json: Map<String, Json>,
    /// Every token, added ones too, and its id.
    pub(super) ids: HashMap<String, u32>,
    /// Tokens that were added, by their ids.
    pub(super) added: HashMap<u32, Added>,
    tokenizer: Tokenizer,
    path: PathBuf,
}

/// A token that was added to the vocabulary.
#[derive(Debug, Clone)]
pub(super) struct Added {
    pub(super) is_special: bool,
    pub(super) is_normalized: bool,
}

impl Fast {
    pub(super) fn open(files: Files) -> Result<Self> {
        let path = files.directory().join(TOKENIZER_FILE);
        let Some(text) = files.bytes(TOKENIZER_FILE)? else {
            return Err(no_tokenizer(files.directory()));
        };
        let json = files.object(TOKENIZER_FILE)?.unwrap_or_default();
        let read = guarded(&path, || Tokenizer::from_bytes(&text))?;
        let tokenizer = read.map_err(|error| {
            let problem = format!("it is no tokenizer: {error}");
            Error::of_file(Code::BadTokenizer, &path, problem)
        })?;
        let added = tokenizer.get_added_tokens_decoder();
        let added = added.iter().map(|(id, token)| {
            let added = Added {
                is_special: token.special,
                is_normalized: token.normalized,
            };
            (*id, added)
        });
        Ok(Fast {
            json,
            ids: tokenizer.get_vocab(true).into_iter().collect(),
            added: added.collect(),
            tokenizer,
            path,
        })
    }

    pub(super) fn error(&self, problem: String) -> Error {
        Error::of_file(Code::BadTokenizer, &self.path, problem)
    }

    fn model(&self, key: &str) -> Option<&Json> {
        self.json.get("model")?.get(key)
    }

    /// Whether it is what `transformers` makes of a tokenizer.model of Llama: BPE that falls back on bytes.
    pub(super) fn is_llama(&self) -> bool {
        let decoder = self
            .json
            .get("decoder")
            .and_then(|decoder| decoder.get("type"));
        self.model("type").and_then(Json::as_str) == Some("BPE")
            && self.model("byte_fallback") == Some(&Json::Bool(true))
            && decoder.and_then(Json::as_str) == Some("Sequence")
    }

    /// The ids of `text`, with the tokens that the tokenizer puts around it if `special`.
    pub(super) fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoded = guarded(&self.path, || self.tokenizer.encode(text, special))?;
        let encoded =
            encoded.map_err(|error| self.error(format!("it cannot cut text: {error}")))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens too.
    pub(super) fn text(&self, ids: &[u32]) -> Result<String> {
        let decoded = guarded(&self.path, || self.tokenizer.decode(ids, false))?;
        decoded.map_err(|error| self.error(format!("it cannot put tokens together: {error}")))
    }

    /// The vocabulary of one that [is Llama's](Self::is_llama). There are no scores in it.
    pub(super) fn llama_vocabulary(
        &self,
        tokenizer_config: Option<&Map<String, Json>>,
    ) -> Vocabulary {
        let base = self.tokenizer.get_vocab_size(false) as u32;
        let special = special_tokens(tokenizer_config);
        let names: HashMap<u32, &str> =
            self.ids.iter().map(|(token, id)| (*id, &**token)).collect();
        let mut vocabulary = Vocabulary::default();
        let mut added: Vec<u32> = self
            .added
            .keys()
            .copied()
            .filter(|id| *id >= base)
            .collect();
        added.sort_unstable();
        for id in 0..base {
            let Some(token) = names.get(&id) else {
                continue;
            };
            let kind = match special.contains(*token) {
                _ if is_byte(token) => TokenType::Byte,
                true => TokenType::Control,
                false => TokenType::Normal,
            };
            vocabulary.push(*token, kind);
        }
        for id in added {
            let Some(token) = names.get(&id) else {
                continue;
            };
            let kind = match special.contains(*token) {
                true => TokenType::Control,
                false => TokenType::UserDefined,
            };
            vocabulary.push(*token, kind);
        }
        vocabulary.scores = vec![-1000.0; vocabulary.tokens.len()];
        vocabulary
    }
}

/// The tokens that tokenizer_config.json gives a part to play.
fn special_tokens(config: Option<&Map<String, Json>>) -> HashSet<String> {
    const PARTS: [&str; 7] = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ];
    let content = |json: &Json| {
        let content = json.as_str().or_else(|| json.get("content")?.as_str());
        content.map(str::to_owned)
    };
    let Some(config) = config else {
        return HashSet::new();
    };
    let parts = PARTS.iter().filter_map(|part| config.get(*part));
    let lists = ["additional_special_tokens", "extra_special_tokens"].iter();
    let lists = lists.filter_map(|key| config.get(*key)?.as_array());
    parts.chain(lists.flatten()).filter_map(content).collect()
}

/// `<0x0A>`
fn is_byte(token: &str) -> bool {
    let digits = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

//! `tokenizer.…`: tokens, their scores and types, merges, special tokens and chat templates.

mod bpe;
mod fast;
mod pre_tokenizer;
mod sentencepiece;
mod special;
mod template;
mod vocabulary;

use serde_json::{Map, Value as Json};

use crate::error::setting::GGUF_PRE;
use crate::error::{Code, Error, Hint, Result};
use crate::ops::gguf::architecture::Architecture;
use crate::ops::gguf::files::Files;
use crate::ops::gguf::metadata::{Hparams, KeyWriter};
use special::Special;
use vocabulary::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_MODEL, no_tokenizer};

/// The tokenizer's keys. `pre` is the pre-tokenizer that somebody names.
///
/// # Errors
/// If there is no tokenizer, it is not of a kind that the architecture has, or its pre-tokenizer is not known.
pub(super) fn keys(
    keys: &mut KeyWriter,
    architecture: &Architecture,
    hparams: &Hparams,
    config: &Map<String, Json>,
    files: Files,
    pre: Option<&str>,
) -> Result<()> {
    let tokenizer_config = files.object(TOKENIZER_CONFIG_FILE)?;
    let source = Source {
        hparams,
        config,
        files,
        tokenizer_config: tokenizer_config.as_ref(),
        pre,
    };
    match architecture.name {
        "llama" => source.llama(keys),
        "qwen2" | "qwen3" => match files.has(TOKENIZER_MODEL) {
            true => source.sentencepiece(keys),
            false => source.bpe(keys),
        },
        "gemma3" => match files.has(TOKENIZER_MODEL) {
            true => {
                source.sentencepiece(keys)?;
                keys.bool("tokenizer.ggml.add_space_prefix", false);
                Ok(())
            }
            false => source.bpe(keys),
        },
        _ => source.bpe(keys),
    }
}

/// How many tokens the tokenizer of Gemma has, beyond which rows of the embedding are cut off.
///
/// # Errors
/// As [`keys`].
pub(super) fn vocabulary_len(hparams: &Hparams, files: Files) -> Result<u64> {
    if files.has(TOKENIZER_MODEL) {
        return match hparams.whole("vocab_size") {
            Some(size) => Ok(size),
            None => Ok(sentencepiece::pieces(files)?.len() as u64),
        };
    }
    let Some(json) = files.object(TOKENIZER_FILE)? else {
        return Err(no_tokenizer(files.directory()));
    };
    let count = |json: Option<&Json>| match json {
        Some(Json::Object(map)) => map.len() as u64,
        Some(Json::Array(list)) => list.len() as u64,
        _ => 0,
    };
    let vocabulary = json.get("model").and_then(|model| model.get("vocab"));
    Ok(count(vocabulary) + count(json.get("added_tokens")))
}

/// What keys are made of.
#[derive(Clone, Copy)]
struct Source<'a> {
    hparams: &'a Hparams,
    /// config.json as it is.
    config: &'a Map<String, Json>,
    files: Files<'a>,
    tokenizer_config: Option<&'a Map<String, Json>>,
    pre: Option<&'a str>,
}

impl Source<'_> {
    /// Llama 1 and 2 have tokenizer.model or what is made of one, Llama 3 has BPE of bytes.
    fn llama(self, keys: &mut KeyWriter) -> Result<()> {
        let prefix = self
            .tokenizer_config
            .and_then(|c| c.get("add_prefix_space"));
        if let Some(prefix) = prefix.and_then(Json::as_bool) {
            keys.bool("tokenizer.ggml.add_space_prefix", prefix);
        }
        if self.files.has(TOKENIZER_MODEL) {
            self.sentencepiece(keys)?;
        } else {
            let fast = fast::Fast::open(self.files)?;
            match fast.is_llama() {
                true => self.fast_llama(keys, &fast)?,
                false => self.bpe_of(keys, &fast)?,
            }
        }
        match self.hparams.whole("vocab_size") {
            Some(32016) => {
                // Code Llama's tokens to fill in the middle.
                keys.u32("tokenizer.ggml.prefix_token_id", 32007);
                keys.u32("tokenizer.ggml.suffix_token_id", 32008);
                keys.u32("tokenizer.ggml.middle_token_id", 32009);
                keys.u32("tokenizer.ggml.eot_token_id", 32010);
            }
            Some(49152) => keys.bool("tokenizer.ggml.add_bos_token", false),
            _ => {}
        }
        Ok(())
    }

    fn sentencepiece(self, keys: &mut KeyWriter) -> Result<()> {
        let size = self.hparams.whole("vocab_size");
        let vocabulary = sentencepiece::vocabulary(self.files, self.tokenizer_config, size)?;
        vocabulary.write(keys, "llama", "default");
        let json = self.files.object(TOKENIZER_FILE)?;
        let count = vocabulary.tokens.len() as u64;
        self.special(json.as_ref(), Some(count))?.write(keys, &[])
    }

    fn fast_llama(self, keys: &mut KeyWriter, fast: &fast::Fast) -> Result<()> {
        let vocabulary = fast.llama_vocabulary(self.tokenizer_config);
        vocabulary.write(keys, "llama", "default");
        let count = vocabulary.tokens.len() as u64;
        self.special(Some(&fast.json), Some(count))?
            .write(keys, &[])
    }

    fn bpe(self, keys: &mut KeyWriter) -> Result<()> {
        let fast = fast::Fast::open(self.files)?;
        self.bpe_of(keys, &fast)
    }

    fn bpe_of(self, keys: &mut KeyWriter, fast: &fast::Fast) -> Result<()> {
        let pre = match self.pre {
            Some(pre) => pre.to_owned(),
            None => self.pre_tokenizer(fast)?,
        };
        let vocabulary = bpe::vocabulary(fast, self.hparams)?;
        vocabulary.write(keys, "gpt2", &pre);
        let merges = bpe::merges(fast, self.files)?;
        self.special(Some(&fast.json), None)?.write(keys, &merges)
    }

    fn pre_tokenizer(self, fast: &fast::Fast) -> Result<String> {
        let ids = fast.ids(pre_tokenizer::TEXT, true)?;
        pre_tokenizer::find(&ids).map(str::to_owned).map_err(|fingerprint| {
            let problem = format!(
                "its pre-tokenizer is none that llama.cpp is known to have (fingerprint {fingerprint})"
            );
            let path = self.files.directory().join(TOKENIZER_FILE);
            let error = Error::of_file(Code::PreTokenizer, path, problem);
            error.with_hint(Hint::give(GGUF_PRE).to("name the one that cuts text in the same way"))
        })
    }

    fn special(self, json: Option<&Map<String, Json>>, count: Option<u64>) -> Result<Special> {
        Special::find(json, self.tokenizer_config, self.config, self.files, count)
    }
}

/// Checks that llama.cpp has a pre-tokenizer of this name.
///
/// # Errors
/// If it has none.
pub(super) fn check_pre(name: &str) -> Result<()> {
    if pre_tokenizer::is_known(name) {
        return Ok(());
    }
    let problem = format!("llama.cpp has no pre-tokenizer {name}");
    Err(Error::new(Code::BadValue, problem).about_value(GGUF_PRE, name))
}

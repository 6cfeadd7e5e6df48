//! tokenizer.json as the crate `tokenizers` understands it.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use tokenizers::{AddedToken, Tokenizer as Inner};

use crate::error::{Code, Error, Result};

/// A tokenizer that was read from `path`.
pub(crate) struct Tokenizer {
    inner: Inner,
    path: PathBuf,
}

impl Tokenizer {
    /// The tokenizer that `text`, the content of `path`, describes.
    ///
    /// # Errors
    /// If it describes none.
    pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let read = guarded(path, || Inner::from_bytes(text))?;
        let inner = read.map_err(|error| {
            let problem = format!("it is no tokenizer: {error}");
            Error::of_file(Code::BadTokenizer, path, problem)
        })?;
        let path = path.to_owned();
        Ok(Tokenizer { inner, path })
    }

    /// The ids of `text`, without tokens that the tokenizer puts around texts.
    ///
    /// # Errors
    /// If it cannot cut this text.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = guarded(&self.path, || self.inner.encode(text, false))?;
        let encoded = encoded.map_err(|error| self.error("it cannot cut text", &*error))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// Adds `tokens` that it does not have, in this order, and gives those that it has these properties.
    ///
    /// # Errors
    /// If one cannot be added.
    pub(crate) fn add(&mut self, tokens: Vec<AddedToken>) -> Result<()> {
        let path = self.path.clone();
        let added = guarded(&path, || self.inner.add_tokens(tokens))?;
        added.map_err(|error| self.error("a token cannot be added", &*error))?;
        Ok(())
    }

    /// The text of tokenizer.json.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn text(&self) -> Result<Vec<u8>> {
        let text = guarded(&self.path, || self.inner.to_string(true))?;
        let text = text.map_err(|error| self.error("it cannot be written", &*error))?;
        Ok(text.into_bytes())
    }

    fn error(&self, problem: &str, error: &(dyn std::error::Error + 'static)) -> Error {
        Error::of_file(
            Code::BadTokenizer,
            &self.path,
            format!("{problem}: {error}"),
        )
    }
}

/// What `work` gives, or an error where a damaged tokenizer lets the crate panic.
///
/// # Errors
/// As that says.
pub(crate) fn guarded<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        let problem = "it is damaged: reading it failed in a way that was not expected";
        Error::of_file(Code::BadTokenizer, path, problem)
    })
}

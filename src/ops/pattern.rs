//! Regular expressions for tensor names, within bounds on what they may cost.

use regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};

/// A regular expression that must match a whole name.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    whole_name: Regex,
}

impl Pattern {
    /// The pattern `text`, which messages call a `what`.
    ///
    /// # Errors
    /// If it is not a regular expression, or too large.
    pub(super) fn new(what: &str, text: &str) -> Result<Self> {
        // On its own first: unbalanced parentheses must not escape the anchors.
        compile(what, text)?;
        Ok(Pattern {
            text: text.to_owned(),
            whole_name: build(what, &format!("^(?:{text})$"))?,
        })
    }

    /// Whether all of `name` is what the pattern describes.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.whole_name.is_match(name)
    }

    /// As it was given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Compiles `text`, a regular expression that messages call a `what`.
///
/// # Errors
/// If it is not a regular expression, or too large.
pub(super) fn compile(what: &str, text: &str) -> Result<Regex> {
    check_length(what, text)?;
    build(what, text)
}

fn build(what: &str, text: &str) -> Result<Regex> {
    const SIZE_LIMIT: usize = 1 << 20;
    RegexBuilder::new(text)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|e| Error::Request(format!("the {what} {text} cannot be used: {e}")))
}

/// Checks that `text` is not too long to be looked at.
pub(super) fn check_length(what: &str, text: &str) -> Result<()> {
    // A class such as \w takes 6 kB before the size of anything is known.
    const MOST_BYTES: usize = 16 << 10;
    if text.len() <= MOST_BYTES {
        return Ok(());
    }
    let start: String = text.chars().take(64).collect();
    Err(Error::Request(format!(
        "the {what} {start}… has {} bytes; at most {MOST_BYTES} are allowed",
        text.len()
    )))
}

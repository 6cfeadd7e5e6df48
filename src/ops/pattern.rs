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

    /// Says that the pattern, which is given by `flag`, matches none of `names`, and which pattern
    /// like it does.
    pub(super) fn unmatched(&self, flag: &str, names: &[&str]) -> String {
        let text = &self.text;
        match self.matching(names) {
            Some(other) => {
                format!("{flag} {text} matches no tensor name as a whole; did you mean {other}?")
            }
            None => format!("{flag} {text} matches no tensor name as a whole, nor a part of one"),
        }
    }

    /// A pattern for names that have this one's text as a part, if there is such a name.
    fn matching(&self, names: &[&str]) -> Option<String> {
        let text = self.text.strip_prefix('^').unwrap_or(&self.text);
        let text = match text.strip_suffix('$') {
            Some(text) if !text.ends_with('\\') => text,
            _ => text,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let part = match text {
            text if text.chars().all(is_name) => text.replace('.', r"\."),
            text if text.contains('|') => format!("(?:{text})"),
            text => text.to_owned(),
        };
        // A module, the end of names, any part of them.
        let candidates = [
            format!(r".*{part}\..*"),
            format!(".*{part}"),
            format!(".*{part}.*"),
        ];
        candidates.into_iter().find(|candidate| {
            let pattern = Pattern::new("pattern", candidate);
            pattern.is_ok_and(|pattern| names.iter().any(|name| pattern.matches(name)))
        })
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

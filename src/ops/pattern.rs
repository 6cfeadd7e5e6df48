//! Regular expressions for tensor names, within bounds on what they may cost.

use regex::{Regex, RegexBuilder};

use crate::error::{Code, Error, Result, Warning};

/// A regular expression that must match a whole name.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    whole_name: Regex,
}

impl Pattern {
    /// The pattern `text`, which `setting` of the request has.
    ///
    /// # Errors
    /// If it is not a regular expression, or too large.
    pub(super) fn new(setting: &'static str, text: &str) -> Result<Self> {
        // On its own first: unbalanced parentheses must not escape the anchors.
        compile(setting, text)?;
        Ok(Pattern {
            text: text.to_owned(),
            whole_name: build(setting, text, &format!("^(?:{text})$"))?,
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

    /// Warns that the pattern, which `setting` has, matches none of `names`, and suggests one that
    /// does.
    pub(super) fn unmatched(&self, setting: &'static str, names: &[&str]) -> Warning {
        let warning = |problem| Warning::new(Code::NoMatch, problem);
        let warning = match self.matching(names) {
            Some(other) => warning("it matches no tensor name as a whole")
                .with_hint(format!("did you mean {other}?")),
            None => warning("it matches no tensor name as a whole, nor a part of one"),
        };
        warning.about_value(setting, &*self.text)
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

/// Compiles `text`, a regular expression that `setting` of the request has.
///
/// # Errors
/// If it is not a regular expression, or too large.
pub(super) fn compile(setting: &'static str, text: &str) -> Result<Regex> {
    check_length(setting, text)?;
    build(setting, text, text)
}

/// Compiles `regex`, which is made of `text`.
fn build(setting: &'static str, text: &str, regex: &str) -> Result<Regex> {
    const SIZE_LIMIT: usize = 1 << 20;
    RegexBuilder::new(regex)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|e| {
            let problem = format!("this regular expression cannot be used: {e}");
            Error::new(Code::BadPattern, problem).about_value(setting, text)
        })
}

/// Checks that `text` is not too long to be looked at.
pub(super) fn check_length(setting: &'static str, text: &str) -> Result<()> {
    // A class such as \w takes 6 kB before the size of anything is known.
    const MOST_BYTES: usize = 16 << 10;
    if text.len() <= MOST_BYTES {
        return Ok(());
    }
    let start: String = text.chars().take(64).collect();
    let problem = format!(
        "it has {} bytes; at most {MOST_BYTES} are allowed",
        text.len()
    );
    Err(Error::new(Code::BadPattern, problem).about_value(setting, format!("{start}…")))
}

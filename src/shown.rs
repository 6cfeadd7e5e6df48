//! Names that others chose, as they are shown: files, directories, tensors and keys of a checkpoint
//! may hold anything, and a terminal must not obey it.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Write};
use std::path::{Path, PathBuf};

/// A text in one line, without anything that a terminal would obey: control characters and those
/// that change the direction of text are escaped, as JSON and YAML do.
#[derive(Debug, Clone)]
pub struct Shown<'a>(Cow<'a, str>);

/// What can be [`Shown`].
pub trait Show {
    /// This text, for people. What is not UTF-8 becomes U+FFFD.
    fn shown(&self) -> Shown<'_>;
}

impl Show for str {
    fn shown(&self) -> Shown<'_> {
        Shown(self.into())
    }
}

impl Show for String {
    fn shown(&self) -> Shown<'_> {
        Shown(self.into())
    }
}

impl Show for OsStr {
    fn shown(&self) -> Shown<'_> {
        Shown(self.to_string_lossy())
    }
}

impl Show for OsString {
    fn shown(&self) -> Shown<'_> {
        Shown(self.to_string_lossy())
    }
}

impl Show for Path {
    fn shown(&self) -> Shown<'_> {
        Shown(self.to_string_lossy())
    }
}

impl Show for PathBuf {
    fn shown(&self) -> Shown<'_> {
        Shown(self.to_string_lossy())
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.contains(is_obeyed) {
            return f.pad(&self.0);
        }
        let mut escaped = String::with_capacity(self.0.len() + 16);
        self.0.chars().for_each(|c| push(c, &mut escaped));
        f.pad(&escaped)
    }
}

/// A text of several lines, each as [`Shown`]. JSON and YAML mean the same afterwards.
pub fn lines(text: &str) -> Cow<'_, str> {
    let is_escaped = |c| is_obeyed(c) && c != '\n';
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push(c),
            c => push(c, &mut escaped),
        }
    }
    escaped.into()
}

/// Whether a terminal would obey `c` instead of showing it.
pub(crate) fn is_obeyed(c: char) -> bool {
    // Marks, embeddings, overrides and isolates of direction; separators of lines and paragraphs.
    let directs = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    directs || c.is_control()
}

fn push(c: char, escaped: &mut String) {
    match c {
        '\n' => escaped.push_str("\\n"),
        '\r' => escaped.push_str("\\r"),
        '\t' => escaped.push_str("\\t"),
        c if is_obeyed(c) => {
            // All of them have four digits at most.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        }
        c => escaped.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        let hostile = "a\u{1b}[2J\u{7}\n\r\t\u{9b}1m\u{202e}\u{7f}b";
        let shown = r"a\u001b[2J\u0007\n\r\t\u009b1m\u202e\u007fb";
        assert_eq!(hostile.shown().to_string(), shown);
        assert_eq!(Path::new(hostile).shown().to_string(), shown);
    }

    #[test]
    fn other_names_are_shown_as_they_are() {
        for name in ["model.layers.0", "模型", "e\u{301}\\n", "\"a b\""] {
            assert_eq!(name.shown().to_string(), name);
        }
        assert_eq!(format!("{:<4}|", "ab".shown()), "ab  |");
    }

    #[test]
    fn lines_of_json_mean_the_same_afterwards() {
        let json = "{\n  \"a\": \"\u{9b}\u{7f}\u{202e}\"\n}\n";
        let shown = lines(json);
        assert_eq!(shown, "{\n  \"a\": \"\\u009b\\u007f\\u202e\"\n}\n");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(json));
    }
}

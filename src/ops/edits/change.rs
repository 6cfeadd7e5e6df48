//! Edits that are understood.

use crate::ops::edits::files::Glob;
use crate::ops::edits::target::Target;
use crate::source::Location;

/// An edit that is understood.
#[derive(Debug)]
pub(super) enum Change {
    Set { target: Target, value: String },
    Unset(Target),
    Promote { target: Target, keep: Vec<String> },
    Add { name: String, from: Location },
    Drop { glob: Glob, text: String },
}

/// A JSON text on one line, and only its start if it is long.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    // No string has a line break.
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let line = lines.join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

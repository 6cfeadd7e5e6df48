//! What errors and warnings have in common.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::code::Code;
use crate::error::hint::{Hint, Spelling};
use crate::error::place::Place;
use crate::shown::{Show, lines};

/// What is wrong with what, and what to do about it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) code: Code,
    pub(super) file: Option<PathBuf>,
    pub(super) place: Option<Place>,
    pub(super) tensor: Option<String>,
    /// The setting of the request that it is about, with the value if it has several.
    pub(super) setting: Option<(&'static str, Option<String>)>,
    pub(super) problem: String,
    pub(super) hint: Option<Hint>,
    /// What else is to be said: warnings that may explain it.
    pub(super) notes: Vec<Message>,
    pub(super) cause: Option<Cause>,
}

/// What programs need of the cause.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Io(Arc<io::Error>),
    NonFinite(NonFinite),
}

/// A value that cannot be quantized.
///
/// Rows count over all leading dimensions: row `r` of a `[E, R, C]` tensor is
/// `[r / R, r % R, ..]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NonFinite {
    pub row: u64,
    pub column: u64,
    pub value: f32,
}

impl Message {
    pub(super) fn new(code: Code, problem: String) -> Self {
        Message {
            code,
            file: None,
            place: None,
            tensor: None,
            setting: None,
            problem,
            hint: None,
            notes: Vec::new(),
            cause: None,
        }
    }

    /// In words, with settings as `spelling` has them.
    pub(super) fn spelled(&self, spelling: Spelling) -> String {
        let mut text = String::new();
        match (&self.place, &self.file) {
            (Some(place), _) => text += &format!("{place}: "),
            (None, Some(file)) => text += &format!("{}: ", file.shown()),
            (None, None) => {}
        }
        if let Some(tensor) = &self.tensor {
            text += &format!("tensor {}: ", tensor.shown());
        }
        if let Some((setting, value)) = &self.setting {
            let setting = spelling(setting, value.as_deref());
            text += &format!("{}: ", lines(&setting));
        }
        text += &lines(&self.problem);
        if let Some(hint) = &self.hint {
            text += &format!("; {}", lines(&hint.spelled(spelling)));
        }
        for note in &self.notes {
            text += &format!("; {}", note.spelled(spelling));
        }
        text
    }
}

//! Settings of operators. Each operator describes its settings once; flags, keys of recipes and
//! written recipes are made from that.

use std::fmt::Debug;
use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::named::Named;
use crate::ops::conversions::Conversions;
use crate::ops::operator::Operator;
use crate::source::Location;

/// What is asked of an operator.
pub trait Params: Debug {
    /// Its settings, in the order in which they are shown.
    fn settings(&self) -> &'static [Setting];

    /// Names that flags had before and still may have: the flag, and the former name.
    fn former_flags(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The map of a recipe that has its keys, if that is not `view` itself.
    fn section(&self) -> Option<&'static Section> {
        None
    }

    /// Takes `value` for the setting `key`: appends it to a list, replaces any other value.
    ///
    /// # Errors
    /// If it is not a possible value.
    fn set(&mut self, key: &str, value: Value) -> Result<()>;

    /// What the setting `key` has, to be written down: nothing where nothing is asked.
    fn get(&self, key: &str) -> Vec<Value>;

    /// What is asked, in the order in which it is written down.
    fn asked(&self) -> Vec<(&'static Setting, Value)> {
        let settings = self.settings().iter();
        let asked = settings.flat_map(|setting| {
            let values = self.get(setting.key).into_iter();
            values.map(move |value| (setting, value))
        });
        asked.collect()
    }

    /// Takes relative paths of files for relative to `directory`.
    fn relative_to(&mut self, _directory: &Path) {}

    /// Whether anything is asked of the operator.
    fn is_asked(&self) -> bool {
        let mut settings = self.settings().iter();
        settings.any(|setting| !self.get(setting.key).is_empty())
    }

    /// Whether shards that do not have standard names may be renumbered where they stand, rather
    /// than repacked: nothing but adding tensors, or changing values, is done to them.
    fn keeps_shards(&self) -> bool {
        false
    }

    /// The operators for these settings; `conversions` are those of the request. Opens their sources.
    ///
    /// # Errors
    /// If it cannot be done.
    fn operators(&self, conversions: &Conversions) -> Result<Vec<Box<dyn Operator>>>;
}

/// Something that can be asked of an operator.
#[derive(Debug)]
pub struct Setting {
    /// Its key in `view` of a recipe; of one in a [`Section`], after that one's key and a point.
    pub key: &'static str,
    /// Its flag, without dashes.
    pub flag: &'static str,
    pub takes: Takes,
    pub group: Group,
    /// What the flag does.
    pub help: &'static str,
    /// The comment after the key in a written recipe, if any.
    pub comment: &'static str,
}

/// What a setting takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// One of several names, each with the others that mean the same ([`Named::NAMES`]).
    Choice(&'static [&'static [&'static str]]),
    /// On or off, or one of several names, which has a flag of its own with its help.
    SwitchOrChoice {
        flag: &'static str,
        names: &'static [&'static [&'static str]],
        help: &'static str,
        /// Settings that the switch gives a value too, by their keys; their own flags exclude it.
        also: &'static [(&'static str, &'static str)],
    },
    /// One of several names, each with a flag of its own and its help. A regular expression behind
    /// it says what that is about; there may be several of these.
    ScopedFlags(&'static [(&'static str, &'static str, &'static str)]),
    /// On, or not asked for.
    Switch,
    /// A whole number; what it is called.
    Number(&'static str),
    /// A text; what it is called.
    Text(&'static str),
    /// Any number of texts; what one is called.
    Texts(&'static str),
    /// A file.
    File,
    /// Any number of files, each with the name that it is to have.
    Files,
    /// Any number of directories or the like.
    Sources,
    /// The same, each with a weight.
    WeightedSources,
    /// The same, each with a regular expression of whole names of tensors, or without.
    SelectiveSources,
}

impl Takes {
    pub(crate) fn is_source(self) -> bool {
        matches!(
            self,
            Takes::Sources | Takes::WeightedSources | Takes::SelectiveSources
        )
    }
}

/// Keys of a recipe that share a map.
#[derive(Debug)]
pub struct Section {
    pub key: &'static str,
    /// Another key that it had before, and may still have.
    pub former_key: Option<&'static str>,
    /// The setting that a text in place of the map stands for.
    pub named: Option<&'static str>,
    /// Settings that say what its operator is done to; the first one is on where `true` stands for
    /// the section, or none of them is there.
    pub selecting: &'static [&'static str],
    /// Whether they stand in a list, in the order in which they are applied, each as a map of its
    /// own; a map may have several only if all but one are of these.
    pub in_order: Option<&'static [&'static str]>,
    pub comment: &'static str,
}

/// The headings of flags in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Sources,
    Files,
    Tensors,
    Quantization,
    Shards,
    Gguf,
}

/// A value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Switch(bool),
    Number(u64),
    /// A name or a text.
    Text(String),
    /// A name, and a regular expression of what it is about.
    Scoped {
        name: String,
        scope: String,
    },
    /// A file and the name that it is to have, if it is to have one.
    File {
        name: Option<String>,
        from: Location,
    },
    Source {
        location: Location,
        /// 1 where it means nothing.
        weight: f64,
        /// Which tensors of it are meant; all, or where that means nothing, `None`.
        names: Option<String>,
    },
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Value::Text(text.into())
    }

    pub(crate) fn file(from: impl Into<Location>) -> Self {
        Value::File {
            name: None,
            from: from.into(),
        }
    }

    pub(crate) fn source(location: impl Into<Location>) -> Self {
        Value::Source {
            location: location.into(),
            weight: 1.0,
            names: None,
        }
    }

    /// Where it is read from, if it is of a file or a source.
    pub fn location(&self) -> Option<&Location> {
        match self {
            Value::File { from: location, .. } | Value::Source { location, .. } => Some(location),
            Value::Switch(_) | Value::Number(_) | Value::Text(_) | Value::Scoped { .. } => None,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        *self == Value::Switch(true)
    }

    pub(crate) fn into_number(self) -> u64 {
        match self {
            Value::Number(number) => number,
            _ => unreachable!("a number is given for a setting that takes one"),
        }
    }

    pub(crate) fn into_text(self) -> String {
        match self {
            Value::Text(text) => text,
            _ => unreachable!("a text is given for a setting that takes one"),
        }
    }

    /// The name that a file is to have, if any, and the file.
    pub(crate) fn into_file(self) -> (String, Location) {
        match self {
            Value::File { name, from } => (name.unwrap_or_default(), from),
            _ => unreachable!("a file is given for a setting that takes one"),
        }
    }

    /// The source and its weight.
    pub(crate) fn into_source(self) -> (Location, f64) {
        match self {
            Value::Source {
                location, weight, ..
            } => (location, weight),
            _ => unreachable!("a source is given for a setting that takes one"),
        }
    }

    /// The source and which of its tensors are meant.
    pub(crate) fn into_selective_source(self) -> (Location, Option<String>) {
        match self {
            Value::Source {
                location, names, ..
            } => (location, names),
            _ => unreachable!("a source is given for a setting that takes one"),
        }
    }
}

/// The value of a choice that is called `value`.
///
/// # Errors
/// If none is; the message has the names that there are.
pub(crate) fn chosen<N: Named>(value: Value) -> Result<N> {
    let name = value.into_text();
    N::named(&name).ok_or_else(|| {
        let names: Vec<&str> = N::VALUES.iter().map(|value| value.name()).collect();
        let problem = format!("{name} is none of {}", names.join(", "));
        Error::new(Code::BadValue, problem)
    })
}

/// How hints and warnings have the name of a choice and its scope: as a recipe has them.
pub(crate) fn scoped(name: &str, scope: &str) -> String {
    format!("{{{name}: {scope}}}")
}

/// The name and the scope that [`Hint`](crate::error::Hint)s and warnings have as a value `{name: scope}`, or
/// the name alone.
pub fn split_scope(value: &str) -> (&str, Option<&str>) {
    let inside = value
        .strip_prefix('{')
        .and_then(|value| value.strip_suffix('}'));
    match inside.and_then(|inside| inside.split_once(": ")) {
        Some((name, scope)) => (name, Some(scope)),
        None => (value, None),
    }
}

/// The key of a setting without that of its section.
pub(crate) fn short(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, key)| key)
}

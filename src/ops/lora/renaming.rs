//! Names of an adapter's model that begin otherwise than those of the base.
//!
//! The model that an adapter was trained on may be the base in another wrapper: with its head or
//! without, as the language model of a larger one, or as another version of transformers calls it.
//! Then names differ by what they begin with, and all by the same.

use std::fmt;

use indexmap::IndexSet;

use crate::catalog::Catalog;
use crate::error::{Code, Error, Result};
use crate::ops::lora::adapter::Adapter;
use crate::shown::Show;

/// Modules that hold a whole model, or all of a language model, and nothing beside it that has names like it.
/// An encoder or a decoder is not among them: one may not be taken for the other.
const WRAPPERS: [&str; 10] = [
    "_fsdp_wrapped_module",
    "_orig_mod",
    "base_model",
    "language_model",
    "llm",
    "model",
    "module",
    "text_model",
    "thinker",
    "transformer",
];

/// The most beginnings of either side that are tried, and the most names before the rest of one.
const MOST_BEGINNINGS: usize = 8;
const MOST_WRAPPERS: usize = 6;

/// How names of the adapter's model become names of the base: those that begin with `from` begin
/// with `to` instead, and others stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Renaming {
    from: String,
    to: String,
}

impl Renaming {
    /// The renaming under which everything that the adapter changes has its place in the base, which is
    /// none where all have it as they are, or there is no such.
    ///
    /// `names` are the adapter's, and `has_place` says whether the base has a place for one.
    ///
    /// # Errors
    /// If there are several, and the adapter's tensors would go to different places by them.
    pub(super) fn find(
        catalog: &Catalog,
        adapter: &Adapter,
        names: &[String],
        has_place: &dyn Fn(&str) -> bool,
    ) -> Result<Self> {
        let fits = |renaming: &Renaming| {
            let mut names = names.iter();
            names.all(|name| has_place(&renaming.apply(name)))
        };
        let none = Renaming::default();
        if fits(&none) {
            return Ok(none);
        }
        let theirs = beginnings(names.iter().map(String::as_str));
        let ours = beginnings(catalog.tensors.keys().map(|name| &**name));
        let pairs = theirs
            .iter()
            .flat_map(|from| ours.iter().map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        let renamings = pairs.map(|(&from, &to)| Renaming {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        let mut fitting = renamings.filter(fits);
        let Some(found) = fitting.next() else {
            return Ok(none);
        };
        let is_other = |other: &Renaming| {
            names
                .iter()
                .any(|name| found.apply(name) != other.apply(name))
        };
        if let Some(other) = fitting.find(is_other) {
            return Err(Error::of_file(
                Code::AdapterMismatch,
                &adapter.directory,
                format!(
                    "its names are not those of the base, and there are two ways to change what they begin with: {found}, or {other}"
                ),
            )
            .with_hint("rename the tensors in adapter_model.safetensors to the base's names"));
        }
        Ok(found)
    }

    pub(super) fn apply(&self, name: &str) -> String {
        match name.strip_prefix(self.from.as_str()) {
            Some(rest) => [self.to.as_str(), rest].concat(),
            None => name.to_owned(),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.from == self.to
    }
}

impl fmt::Display for Renaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}* as {}*", self.from.shown(), self.to.shown())
    }
}

/// What `names` begin with: all runs of wrappers, each with a dot behind it, and nothing; the longest first.
fn beginnings<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = IndexSet::from([""]);
    for name in names {
        let mut end = 0;
        for part in name.split_inclusive('.').take(MOST_WRAPPERS) {
            let is_wrapper = part
                .strip_suffix('.')
                .is_some_and(|part| WRAPPERS.contains(&part));
            if !is_wrapper {
                break;
            }
            end += part.len();
            if found.len() < MOST_BEGINNINGS {
                found.insert(&name[..end]);
            }
        }
    }
    let mut found: Vec<&str> = found.into_iter().collect();
    found.sort_by_key(|beginning| std::cmp::Reverse(beginning.len()));
    found
}

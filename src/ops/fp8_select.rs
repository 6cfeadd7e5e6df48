//! Which tensors an FP8 view quantizes: by rule set, by reference checkpoint, by pattern.

use std::path::{Path, PathBuf};

use indexmap::IndexSet;

use crate::error::{Error, Result};
use crate::ops::fp8_rules;
use crate::ops::pattern::Pattern;
use crate::source;
use crate::tensor::{Name, SCALE_SUFFIX, scaled_name};

/// What the patterns of a selection are called in messages.
const WHAT: &str = "FP8 pattern";

/// A set of tensor names, given by any of the three ways.
#[derive(Debug)]
pub struct Selection {
    rules: bool,
    references: Vec<Reference>,
    patterns: Vec<Pattern>,
}

/// The names that a reference checkpoint has quantized.
#[derive(Debug)]
pub struct Reference {
    pub directory: PathBuf,
    pub names: IndexSet<Name>,
    pub quantized: IndexSet<Name>,
}

impl Selection {
    /// Reads the references and compiles the patterns.
    ///
    /// # Errors
    /// If a reference has no quantized tensor, or a pattern is not a regular expression or too
    /// large when compiled.
    pub fn new(rules: bool, references: &[PathBuf], patterns: &[String]) -> Result<Self> {
        Ok(Selection {
            rules,
            references: references
                .iter()
                .map(|directory| Reference::read(directory))
                .collect::<Result<_>>()?,
            patterns: patterns
                .iter()
                .map(|pattern| Pattern::new(WHAT, pattern))
                .collect::<Result<_>>()?,
        })
    }

    /// Checks that `pattern` is a regular expression that [`Selection::new`] accepts.
    pub fn check_pattern(pattern: &str) -> Result<()> {
        Pattern::new(WHAT, pattern).map(drop)
    }

    /// Whether the tensor called `name` is selected.
    pub fn selects(&self, name: &str) -> bool {
        (self.rules && fp8_rules::matches(name))
            || self.in_reference(name)
            || self.patterns.iter().any(|p| p.matches(name))
    }

    /// Whether a reference has the tensor called `name` quantized.
    pub fn in_reference(&self, name: &str) -> bool {
        self.references.iter().any(|r| r.quantized.contains(name))
    }

    /// The references, in the order they were given.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// The patterns that match none of `names`.
    pub fn idle_patterns<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.patterns
            .iter()
            .filter(|p| !names.iter().any(|name| p.matches(name)))
            .map(Pattern::text)
    }
}

impl Reference {
    fn read(directory: &Path) -> Result<Self> {
        let names = source::tensor_names(directory)?;
        let quantized: IndexSet<Name> = names
            .iter()
            .filter_map(|name| scaled_name(name))
            .map(Name::from)
            .collect();
        if quantized.is_empty() {
            return Err(Error::checkpoint(
                directory,
                format!(
                    "no tensor here is called *{SCALE_SUFFIX}, so it cannot be a reference for which tensors to quantize"
                ),
            ));
        }
        Ok(Reference {
            directory: directory.to_owned(),
            names,
            quantized,
        })
    }
}

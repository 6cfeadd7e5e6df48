//! Which tensors a view quantizes: by rule set, by reference checkpoint, by pattern.

use std::path::PathBuf;

use indexmap::IndexSet;

use crate::error::setting::{PATTERNS, REFERENCES, RULES};
use crate::error::{Code, Error, Result, Warning};
use crate::format;
use crate::ops::pattern::Pattern;
use crate::ops::quantize::rules;
use crate::quant::{companions, weight_of};
use crate::source::Location;
use crate::tensor::Name;

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
    pub fn new(rules: bool, references: &[Location], patterns: &[String]) -> Result<Self> {
        Ok(Selection {
            rules,
            references: references
                .iter()
                .map(Reference::read)
                .collect::<Result<_>>()?,
            patterns: patterns
                .iter()
                .map(|pattern| Pattern::new(PATTERNS, pattern))
                .collect::<Result<_>>()?,
        })
    }

    /// Checks that `pattern` is a regular expression that [`Selection::new`] accepts.
    pub fn check_pattern(pattern: &str) -> Result<()> {
        Pattern::new(PATTERNS, pattern).map(drop)
    }

    /// Whether the tensor called `name` is selected.
    pub fn selects(&self, name: &str) -> bool {
        self.parts().any(|part| part.selects(name))
    }

    /// Whether a reference has the tensor called `name` quantized.
    pub fn in_reference(&self, name: &str) -> bool {
        self.references.iter().any(|r| r.quantized.contains(name))
    }

    /// The references, in the order they were given.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// The ways in which tensors are selected, in the order of the flags.
    pub(super) fn parts(&self) -> impl Iterator<Item = SelectionPart<'_>> {
        let rules = self.rules.then_some(SelectionPart::Rules);
        let references = self.references.iter().map(SelectionPart::Reference);
        let patterns = self.patterns.iter().map(SelectionPart::Pattern);
        rules.into_iter().chain(references).chain(patterns)
    }
}

/// One of the ways in which a selection selects.
#[derive(Debug, Clone, Copy)]
pub(super) enum SelectionPart<'a> {
    Rules,
    Reference(&'a Reference),
    Pattern(&'a Pattern),
}

impl SelectionPart<'_> {
    pub(super) fn selects(self, name: &str) -> bool {
        match self {
            SelectionPart::Rules => rules::matches(name),
            SelectionPart::Reference(reference) => reference.quantized.contains(name),
            SelectionPart::Pattern(pattern) => pattern.matches(name),
        }
    }

    /// A warning about it.
    pub(super) fn warning(self, code: Code, problem: &str) -> Warning {
        let warning = Warning::new(code, problem);
        match self {
            SelectionPart::Rules => warning.about(RULES),
            SelectionPart::Reference(reference) => {
                warning.about_value(REFERENCES, reference.directory.display().to_string())
            }
            SelectionPart::Pattern(pattern) => warning.about_value(PATTERNS, pattern.text()),
        }
    }
}

impl Reference {
    fn read(location: &Location) -> Result<Self> {
        let names = format::tensor_names(location)?;
        let quantized: IndexSet<Name> = names
            .iter()
            .filter_map(|name| weight_of(name))
            .map(Name::from)
            .collect();
        if quantized.is_empty() {
            return Err(Error::of_file(
                Code::BadReference,
                location.as_path(),
                format!(
                    "no tensor here is called {}, so this checkpoint cannot say which tensors to quantize",
                    companions("*").collect::<Vec<_>>().join(" or ")
                ),
            ));
        }
        Ok(Reference {
            directory: location.as_path().to_owned(),
            names,
            quantized,
        })
    }
}

//! Which tensors a view quantizes: by rule set, by reference checkpoint, by pattern.

use std::path::PathBuf;

use indexmap::IndexSet;
use regex::Regex;

use crate::catalog::Catalog;
use crate::error::setting::{PATTERNS, REFERENCES, RULES, SCHEME};
use crate::error::{Code, Error, Result, Warning};
use crate::format;
use crate::named::{Named, named};
use crate::ops::pattern::Pattern;
use crate::ops::quantize::{official, rules};
use crate::quant::{SchemeRequest, companions, weight_of};
use crate::source::Location;
use crate::tensor::Name;

/// A set of names to quantize that ckptfs brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleSet {
    /// The built-in rules, the same for all models.
    Exact,
    /// What official FP8 releases of the same `model_type` quantize.
    Official,
}

named!(RuleSet {
    Exact: "exact",
    Official: "official",
});

/// What is to be quantized, in any of the three ways.
#[derive(Debug)]
pub struct Selection {
    rules: Option<RuleSet>,
    /// The scheme that selects by the exact rules, if it is not the usual one.
    scheme: Option<SchemeRequest>,
    references: Vec<Reference>,
    patterns: Vec<Pattern>,
}

/// The names that a reference checkpoint has quantized.
#[derive(Debug)]
pub(super) struct Reference {
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
    pub fn new(
        rules: Option<RuleSet>,
        references: &[Location],
        patterns: &[String],
    ) -> Result<Self> {
        Ok(Selection {
            rules,
            scheme: None,
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

    /// The same for `scheme`, which warnings name where its rules select.
    pub fn of_scheme(self, scheme: &SchemeRequest) -> Self {
        let is_usual = *scheme == SchemeRequest::default();
        Selection {
            scheme: (!is_usual).then(|| scheme.clone()),
            ..self
        }
    }

    /// Checks that `pattern` is a regular expression that [`Selection::new`] accepts.
    pub fn check_pattern(pattern: &str) -> Result<()> {
        Pattern::new(PATTERNS, pattern).map(drop)
    }

    /// Whether one of its patterns matches all of `name`.
    pub fn has_pattern_for(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// What it selects of `catalog`.
    ///
    /// # Errors
    /// If its rule set has no rules for this model.
    pub(super) fn resolve(&self, catalog: &mut Catalog) -> Result<Selected<'_>> {
        let rules = match self.rules {
            None => None,
            Some(RuleSet::Exact) => Some(Rules::Exact),
            Some(RuleSet::Official) => Some(Rules::Official(official::names(catalog)?.1)),
        };
        Ok(Selected {
            rules,
            scheme: self.scheme.as_ref(),
            references: &self.references,
            patterns: &self.patterns,
        })
    }
}

/// A set of tensor names of one model.
#[derive(Debug)]
pub(super) struct Selected<'a> {
    pub rules: Option<Rules>,
    /// As that of a [`Selection`].
    scheme: Option<&'a SchemeRequest>,
    /// In the order they were given.
    pub references: &'a [Reference],
    patterns: &'a [Pattern],
}

/// The rules for one model.
#[derive(Debug)]
pub(super) enum Rules {
    Exact,
    /// The names that official releases quantize.
    Official(Regex),
}

impl Rules {
    pub(super) fn select(&self, name: &str) -> bool {
        match self {
            Rules::Exact => rules::matches(name),
            Rules::Official(names) => names.is_match(name),
        }
    }
}

impl Selected<'_> {
    /// Whether the tensor called `name` is selected.
    pub(super) fn selects(&self, name: &str) -> bool {
        self.parts().any(|part| part.selects(name))
    }

    /// Whether the tensor called `name` is selected by its name, or by a reference: somebody means it.
    pub(super) fn names(&self, name: &str) -> bool {
        let mut parts = self.parts();
        parts.any(|part| !matches!(part, SelectionPart::Rules(_)) && part.selects(name))
    }

    /// Whether a reference has the tensor called `name` quantized.
    pub(super) fn in_reference(&self, name: &str) -> bool {
        self.references.iter().any(|r| r.quantized.contains(name))
    }

    /// A warning about one of its parts.
    pub(super) fn warning(&self, part: SelectionPart, code: Code, problem: &str) -> Warning {
        match (part, self.scheme) {
            (SelectionPart::Rules(Rules::Exact), Some(scheme)) => {
                Warning::new(code, problem).about_value(SCHEME, scheme.to_string())
            }
            _ => part.warning(code, problem),
        }
    }

    /// The ways in which tensors are selected, in the order of the flags.
    pub(super) fn parts(&self) -> impl Iterator<Item = SelectionPart<'_>> {
        let rules = self.rules.iter().map(SelectionPart::Rules);
        let references = self.references.iter().map(SelectionPart::Reference);
        let patterns = self.patterns.iter().map(SelectionPart::Pattern);
        rules.chain(references).chain(patterns)
    }
}

/// One of the ways in which a selection selects.
#[derive(Debug, Clone, Copy)]
pub(super) enum SelectionPart<'a> {
    Rules(&'a Rules),
    Reference(&'a Reference),
    Pattern(&'a Pattern),
}

impl SelectionPart<'_> {
    pub(super) fn selects(self, name: &str) -> bool {
        match self {
            SelectionPart::Rules(rules) => rules.select(name),
            SelectionPart::Reference(reference) => reference.quantized.contains(name),
            SelectionPart::Pattern(pattern) => pattern.matches(name),
        }
    }

    /// A warning about it.
    fn warning(self, code: Code, problem: &str) -> Warning {
        let warning = Warning::new(code, problem);
        match self {
            SelectionPart::Rules(Rules::Exact) => warning.about(RULES),
            SelectionPart::Rules(Rules::Official(_)) => {
                warning.about_value(RULES, RuleSet::Official.name())
            }
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

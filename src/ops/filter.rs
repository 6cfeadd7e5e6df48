//! Leaving tensors out, by regular expressions that match whole names.
//!
//! Scales stay with their weight: a pattern that takes `X` away, or does not keep it, does the same
//! to `X_scale_inv`.

use indexmap::IndexMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::{Error, Result};
use crate::ops::Operator;
use crate::ops::pattern::Pattern;
use crate::tensor::{Name, scaled_name};

/// Keeps what `--only` patterns match (all, without such), less what `--drop` patterns match.
#[derive(Debug)]
pub struct Filter {
    only: Vec<Pattern>,
    drop: Vec<Pattern>,
}

impl Filter {
    const ONLY: &str = "--only pattern";
    const DROP: &str = "--drop pattern";

    /// Compiles the patterns.
    ///
    /// # Errors
    /// If one is not a regular expression, or too large.
    pub fn new(only: &[String], drop: &[String]) -> Result<Self> {
        let compile = |what: &str, patterns: &[String]| {
            let patterns = patterns.iter().map(|text| Pattern::new(what, text));
            patterns.collect::<Result<Vec<_>>>()
        };
        Ok(Filter {
            only: compile(Self::ONLY, only)?,
            drop: compile(Self::DROP, drop)?,
        })
    }

    fn keeps(&self, name: &str) -> bool {
        (self.only.is_empty() || matches(&self.only, name)) && !matches(&self.drop, name)
    }

    /// Whether the tensor called `name` is kept.
    ///
    /// # Errors
    /// If a weight would lose its scales.
    fn decide(&self, tensors: &IndexMap<Name, Tensor>, name: &str, of: &Tensor) -> Result<bool> {
        let weight = scaled_name(name).filter(|weight| tensors.contains_key(*weight));
        let Some(weight) = weight else {
            return Ok(self.keeps(name));
        };
        let kept = self.keeps(weight);
        if kept && matches(&self.drop, name) {
            return Err(Error::tensor(
                of.origin(),
                name,
                format!(
                    "--drop would take away the scales of {weight}, which stays; drop that too (its scales go with it)"
                ),
            ));
        }
        Ok(kept)
    }

    fn idle_patterns(&self, tensors: &IndexMap<Name, Tensor>) -> Vec<String> {
        let both = self.only.iter().map(|pattern| ("--only", pattern));
        let both = both.chain(self.drop.iter().map(|pattern| ("--drop", pattern)));
        both.filter(|(_, pattern)| !tensors.keys().any(|name| pattern.matches(name)))
            .map(|(flag, pattern)| {
                let text = pattern.text();
                format!(
                    "{flag} {text} matches no tensor name as a whole (did you mean .*{text}.*?)"
                )
            })
            .collect()
    }
}

fn matches(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

impl Operator for Filter {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let warnings = self.idle_patterns(&catalog.tensors);
        catalog.report.warnings.extend(warnings);
        let old = std::mem::take(&mut catalog.tensors);
        let before = old.len();
        let mut tensors = IndexMap::with_capacity(before);
        for (name, tensor) in &old {
            if self.decide(&old, name, tensor)? {
                tensors.insert(name.clone(), tensor.clone());
            }
        }
        if tensors.is_empty() && before > 0 {
            return Err(Error::Request(format!(
                "--only and --drop leave nothing of the {before} tensors of this view"
            )));
        }
        catalog.report.dropped += before - tensors.len();
        catalog.tensors = tensors;
        Ok(())
    }
}

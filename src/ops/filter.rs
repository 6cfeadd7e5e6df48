//! Leaving tensors out, by regular expressions that match whole names.
//!
//! Companions (scales) stay with their weight: a pattern that takes `X` away, or does not keep it,
//! does the same to them.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;

use crate::catalog::{Catalog, OperatorReport, Tensor};
use crate::error::setting::{DROP, ONLY};
use crate::error::{Code, Error, Result, Warning};
use crate::ops::pattern::Pattern;
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value};
use crate::quant::{self, Doing, Moves, Role, weight_of};
use crate::tensor::Name;
use crate::text::counted;

/// Keep only the tensors whose whole name one of `only` matches (all, without such), and leave out
/// those that one of `drop` matches. Both are regular expressions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterParams {
    pub only: Vec<String>,
    pub drop: Vec<String>,
}

impl Params for FilterParams {
    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                key: ONLY,
                flag: ONLY,
                takes: Takes::Texts("REGEX"),
                group: Group::Tensors,
                help: "Keep only tensors whose whole name matches REGEX (repeatable)",
                comment: "keeps the tensors of these names",
            },
            Setting {
                key: DROP,
                flag: DROP,
                takes: Takes::Texts("REGEX"),
                group: Group::Tensors,
                help: "Leave out tensors whose whole name matches REGEX (repeatable)",
                comment: "leaves out the tensors of these names",
            },
        ]
    }

    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let (setting, patterns) = match key {
            ONLY => (ONLY, &mut self.only),
            _ => (DROP, &mut self.drop),
        };
        let pattern = value.into_text();
        Pattern::new(setting, &pattern)?;
        patterns.push(pattern);
        Ok(())
    }

    fn get(&self, key: &str) -> Vec<Value> {
        let patterns = match key {
            ONLY => &self.only,
            _ => &self.drop,
        };
        patterns.iter().map(Value::text).collect()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        Ok(vec![Box::new(Filter::new(&self.only, &self.drop)?)])
    }
}

/// How many tensors the view leaves out although a source has them, companions included.
#[derive(Debug)]
struct Dropped(usize);

impl OperatorReport for Dropped {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("dropped", self.0)]
    }
}

/// Keeps what `--only` patterns match (all, without such), less what `--drop` patterns match.
#[derive(Debug)]
struct Filter {
    only: Vec<Pattern>,
    drop: Vec<Pattern>,
}

impl Filter {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// If one is not a regular expression, or too large.
    fn new(only: &[String], drop: &[String]) -> Result<Self> {
        let compile = |setting, patterns: &[String]| {
            let patterns = patterns.iter().map(|text| Pattern::new(setting, text));
            patterns.collect::<Result<Vec<_>>>()
        };
        Ok(Filter {
            only: compile(ONLY, only)?,
            drop: compile(DROP, drop)?,
        })
    }

    fn keeps(&self, name: &str) -> bool {
        (self.only.is_empty() || matches(&self.only, name)) && !matches(&self.drop, name)
    }

    /// Whether the tensor called `name` is kept; `owners` are as [`owners`] gives them.
    ///
    /// # Errors
    /// If a weight would lose its scales.
    fn decide(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        owners: &HashMap<Name, String>,
        name: &Name,
        of: &Tensor,
    ) -> Result<bool> {
        let Some(weight) = owners.get(name) else {
            return Ok(self.keeps(name));
        };
        if !tensors.contains_key(&**weight) {
            // Nobody sees that name: those of its parts go as well.
            let of_either =
                |patterns: &[Pattern]| matches(patterns, name) || matches(patterns, weight);
            return Ok((self.only.is_empty() || of_either(&self.only)) && !of_either(&self.drop));
        }
        let kept = self.keeps(weight);
        if kept && matches(&self.drop, name) {
            return Err(Error::of_tensor(
                Code::ScalesSeparated,
                of.origin(),
                name,
                format!("this matches the scales of {weight}, but not {weight}, which stays"),
            )
            .about(DROP)
            .with_hint("drop that too (its scales go with it)"));
        }
        Ok(kept)
    }

    /// The patterns that have no effect on `tensors`, each with the reason.
    fn idle_patterns(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        owners: &HashMap<Name, String>,
    ) -> Vec<Warning> {
        let of_parts: BTreeSet<&str> = owners.values().map(|weight| &**weight).collect();
        let of_parts = of_parts
            .into_iter()
            .filter(|weight| !tensors.contains_key(*weight));
        let names: Vec<&str> = tensors.keys().map(|name| &**name).chain(of_parts).collect();
        let is_scale = |name: &&&str| {
            owners
                .get(**name)
                .is_some_and(|of| tensors.contains_key(&**of))
        };
        let matched = |pattern: &Pattern| -> Vec<&&str> {
            let names = names.iter();
            names.filter(|name| pattern.matches(name)).collect()
        };
        let mut idle = Vec::new();
        for pattern in &self.only {
            let matched = matched(pattern);
            if matched.is_empty() {
                idle.push(pattern.unmatched(ONLY, &names));
            } else if matched.iter().all(&is_scale) {
                let problem = "it has no effect: it matches scales alone, which stay or go with their weights";
                idle.push(Warning::new(Code::NoEffect, problem).about_value(ONLY, pattern.text()));
            }
        }
        for pattern in &self.drop {
            let matched = matched(pattern);
            if matched.is_empty() {
                idle.push(pattern.unmatched(DROP, &names));
            } else if !self.only.is_empty() && !matched.iter().any(|name| matches(&self.only, name))
            {
                let problem =
                    "it has no effect: the patterns of what is kept match none of these tensors";
                idle.push(Warning::new(Code::NoEffect, problem).about_value(DROP, pattern.text()));
            }
        }
        idle
    }
}

fn matches(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

/// The weight that each tensor belongs to which is another one than the weight's own: scales, and the parts of weights
/// that have no tensor of their name.
fn owners(catalog: &mut Catalog) -> HashMap<Name, String> {
    let scheme = quant::declared_or_usual(catalog);
    let tensors = &catalog.tensors;
    let owners = tensors.iter().filter_map(|(name, tensor)| {
        let by_name = weight_of(name).filter(|weight| tensors.contains_key(*weight));
        if let Some(weight) = by_name {
            return Some((name.clone(), weight.to_owned()));
        }
        match scheme.role(tensors, name, tensor) {
            Role::Codes(weight) if weight != **name => Some((name.clone(), weight)),
            Role::Companion(weight)
                if !scheme.is_movable() || tensors.contains_key(&*scheme.codes(&weight)) =>
            {
                Some((name.clone(), weight))
            }
            _ => None,
        }
    });
    owners.collect()
}

/// Checks that all parts of a weight without a tensor of its name are kept, or none.
///
/// # Errors
/// If they are not.
fn check_parts(
    old: &IndexMap<Name, Tensor>,
    new: &IndexMap<Name, Tensor>,
    owners: &HashMap<Name, String>,
) -> Result<()> {
    let mut fates: HashMap<&str, (&Name, bool)> = HashMap::new();
    for (name, tensor) in old {
        let Some(weight) = owners
            .get(name)
            .filter(|weight| !old.contains_key(&***weight))
        else {
            continue;
        };
        let is_kept = new.contains_key(name);
        let (other, was_kept) = fates.entry(weight).or_insert((name, is_kept));
        if *was_kept != is_kept {
            let problem =
                format!("it and {other} are {weight}, but only one of them would be kept");
            let error = Error::of_tensor(Code::ScalesSeparated, tensor.origin(), name, problem);
            return Err(error.with_hint(format!(
                "let the patterns match {weight}, or all of its tensors"
            )));
        }
    }
    Ok(())
}

impl Operator for Filter {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let owners = owners(catalog);
        let idle = self.idle_patterns(&catalog.tensors, &owners);
        let parts = catalog.parts();
        let old = std::mem::take(&mut catalog.tensors);
        let before = old.len();
        let mut tensors = IndexMap::with_capacity(before);
        for (name, tensor) in &old {
            if self.decide(&old, &owners, name, tensor)? {
                tensors.insert(name.clone(), tensor.clone());
            }
        }
        check_parts(&old, &tensors, &owners)?;
        if tensors.is_empty() && before > 0 {
            let problem = format!(
                "the filters leave nothing of the {} of this view",
                counted(before, "tensor")
            );
            return Err(Error::new(Code::NothingLeft, problem).because(idle));
        }
        catalog.report.warnings.extend(idle);
        if tensors.len() == before && self.drop.is_empty() {
            let problem = "it has no effect: it keeps every tensor of this view";
            let warning = Warning::new(Code::NoEffect, problem).about(ONLY);
            catalog.report.warnings.push(warning);
        }
        catalog.report.add(Dropped(before - tensors.len()));
        let moves = old.keys().map(|name| {
            let stays = tensors.contains_key(name);
            (
                name.clone(),
                stays.then(|| name.clone()).into_iter().collect(),
            )
        });
        quant::follow(catalog, &Moves::new(moves), Doing::Regrouping)?;
        catalog.tensors = tensors;
        if let Some(config) = catalog.glance_at_config() {
            let lost = parts.lost(&catalog.parts(), &config);
            catalog.report.warnings.extend(lost);
        }
        Ok(())
    }
}

//! Renaming: search and replace in tensor names, by regular expressions in order.
//!
//! Every match of an expression anywhere in a name is replaced; `^` and `$` anchor it. The
//! replacement may refer to groups (`$1`, `${1}`, `${name}`; `$$` is a dollar sign).

use indexmap::IndexMap;
use indexmap::map::Entry;
use regex::Regex;
use regex_automata::util::interpolate;

use crate::catalog::{Catalog, OperatorReport, Tensor};
use crate::error::setting::RENAME;
use crate::error::{Code, Error, Result, Warning};
use crate::ops::{Conversions, Group, Operator, Params, Setting, Takes, Value, pattern};
use crate::quant::{self, Doing, Moves};
use crate::tensor::Name;

/// The longest name that is renamed, and the longest result, in bytes.
const MOST_NAME_BYTES: usize = 1024;
/// The key of a safetensors header that is no tensor.
const RESERVED: &str = "__metadata__";

/// Rename tensors by rules such as `^model\\.=language_model.`, which apply in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenameParams {
    pub rules: Vec<String>,
}

impl Params for RenameParams {
    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            key: RENAME,
            flag: "rename",
            takes: Takes::Texts("REGEX=REPLACEMENT"),
            group: Group::Tensors,
            help: "Rename tensors: replace every match of REGEX by REPLACEMENT ($1 or ${name} for groups; repeatable, applied in order)",
            comment: "REGEX=REPLACEMENT, in this order",
        }]
    }

    fn set(&mut self, _key: &str, value: Value) -> Result<()> {
        let rule = value.into_text();
        Rename::new(std::slice::from_ref(&rule))?;
        self.rules.push(rule);
        Ok(())
    }

    fn get(&self, _key: &str) -> Vec<Value> {
        self.rules.iter().map(Value::text).collect()
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        Ok(vec![Box::new(Rename::new(&self.rules)?)])
    }
}

/// How many tensors were renamed.
#[derive(Debug)]
struct Renamed(usize);

impl OperatorReport for Renamed {
    fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![("renamed", self.0)]
    }
}

/// Renames the tensors of a catalog.
#[derive(Debug)]
struct Rename {
    rules: Vec<Rule>,
}

/// One search and replacement.
#[derive(Debug)]
struct Rule {
    text: String,
    search: Regex,
    replacement: String,
}

impl Rename {
    /// Reads rules such as `^model\.=language_model.`, which apply in this order.
    ///
    /// # Errors
    /// If a rule has no `=` or more than one, its expression is invalid, empty or too large, or its
    /// replacement refers to a group that the expression does not have.
    fn new(rules: &[String]) -> Result<Self> {
        let rules = rules.iter().map(|text| Rule::new(text));
        Ok(Rename {
            rules: rules.collect::<Result<_>>()?,
        })
    }

    /// The new names of `tensors`, in their order, and warnings of rules without effect.
    fn new_names(&self, tensors: &IndexMap<Name, Tensor>) -> Result<(Vec<Name>, Vec<Warning>)> {
        let mut names: Vec<Name> = tensors.keys().cloned().collect();
        let mut idle = Vec::new();
        for rule in &self.rules {
            let (mut matches, mut changes) = (false, false);
            for (name, (original, tensor)) in names.iter_mut().zip(tensors) {
                if !rule.search.is_match(name) {
                    continue;
                }
                matches = true;
                let new = rule.rewritten(name).map_err(|problem| {
                    let error = Error::of_tensor(Code::BadName, tensor.origin(), original, problem);
                    error.about_value(RENAME, &*rule.text)
                })?;
                changes |= new != *name;
                *name = new;
            }
            let warning = match (matches, changes) {
                (false, _) => Warning::new(Code::NoMatch, "it matches no tensor name"),
                (true, false) => {
                    let problem = "it has no effect: every match is replaced by the same text";
                    Warning::new(Code::NoEffect, problem)
                }
                (true, true) => continue,
            };
            idle.push(warning.about_value(RENAME, &*rule.text));
        }
        Ok((names, idle))
    }
}

impl Operator for Rename {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let (names, idle) = self.new_names(&catalog.tensors)?;
        catalog.report.warnings.extend(idle);
        let hint = "rename one of them to a third name (patterns that leave tensors out see the new names)";
        let renamed = give_names(catalog, names, RENAME, hint)?;
        if renamed > 0 {
            catalog.report.add(Renamed(renamed));
        }
        Ok(())
    }
}

/// Gives the tensors of `catalog` the names `names`, which are in their order, as `setting` asks. Skip lists follow.
/// `hint` says what to do where two would have one name. Returns how many have another one.
///
/// # Errors
/// If two would have one name, or a weight and its companions would be separated.
pub(in crate::ops) fn give_names(
    catalog: &mut Catalog,
    names: Vec<Name>,
    setting: &'static str,
    hint: &'static str,
) -> Result<usize> {
    let changed = names.iter().zip(catalog.tensors.keys());
    let renamed = changed.filter(|(new, old)| new != old).count();
    if renamed == 0 {
        return Ok(0);
    }
    check_companions(&catalog.tensors, &names)?;
    let moves = catalog.tensors.keys().zip(&names);
    let moves = Moves::new(moves.map(|(old, new)| (old.clone(), vec![new.clone()])));
    quant::follow(catalog, &moves, Doing::Renaming)?;

    let old = std::mem::take(&mut catalog.tensors);
    let mut tensors: IndexMap<Name, Tensor> = IndexMap::with_capacity(old.len());
    for ((original, tensor), new) in old.iter().zip(names) {
        match tensors.entry(new) {
            Entry::Vacant(vacant) => {
                vacant.insert(tensor.clone());
            }
            Entry::Occupied(occupied) => {
                // Until two coincide, positions are those of the old names.
                let (other, _) = old.get_index(occupied.index()).expect("it was inserted");
                let problem = format!(
                    "it would be called {}, as would {other}, and two tensors cannot have one name",
                    occupied.key()
                );
                let error = Error::of_tensor(Code::NameTaken, tensor.origin(), original, problem);
                return Err(error.about(setting).with_hint(hint));
            }
        }
    }
    catalog.tensors = tensors;
    Ok(renamed)
}

/// Checks that every weight of `tensors` and its companions still belong together under the new
/// `names`.
fn check_companions(tensors: &IndexMap<Name, Tensor>, names: &[Name]) -> Result<()> {
    for (companion, (name, tensor)) in tensors.iter().enumerate() {
        let Some(old) = quant::weight_of(name) else {
            continue;
        };
        let Some(weight) = tensors.get_index_of(old) else {
            continue;
        };
        let suffix = &name[old.len()..];
        let expected = [&names[weight], suffix].concat();
        if *names[companion] != *expected {
            return Err(Error::of_tensor(Code::ScalesSeparated, tensor.origin(),
                name,
                format!(
                    "it would be called {}, but its weight {}, whose scales are then called {expected}",
                    names[companion], names[weight]
                ),
            ).about(RENAME).with_hint(format!("let one rule rename both (for example, end the expression with ({suffix})?$ and the replacement with ${{1}})")));
        }
    }
    Ok(())
}

impl Rule {
    fn new(text: &str) -> Result<Self> {
        let invalid = |problem: &str| Error::new(Code::BadValue, problem).about_value(RENAME, text);
        let (search, replacement) = match text.split_once('=') {
            Some((_, replacement)) if replacement.contains('=') => {
                let error = invalid("it has more than one =");
                Err(error.with_hint("write those in the expression as \\x3D"))
            }
            Some(("", _)) => Err(invalid("there is nothing before the =")),
            Some(parts) => Ok(parts),
            None => Err(invalid(
                "expected REGEX=REPLACEMENT, for example ^model\\.=language_model.",
            )),
        }?;
        pattern::check_length(RENAME, replacement)?;
        let rule = Rule {
            text: text.to_owned(),
            search: pattern::compile(RENAME, search)?,
            replacement: replacement.to_owned(),
        };
        match rule.unknown_group() {
            Some(group) => Err(invalid(&format!(
                "the replacement refers to group {group}, which the expression does not have (a name ends at the first character that is no letter, digit or _; ${{1}}x is group 1 and an x)"
            ))),
            None => Ok(rule),
        }
    }

    /// A group that the replacement refers to and the expression does not have.
    fn unknown_group(&self) -> Option<String> {
        let groups = self.search.captures_len();
        let (mut numbers, mut names) = (Vec::new(), Vec::new());
        interpolate::string(
            &self.replacement,
            |group, _| numbers.push(group),
            |name| {
                names.push(name.to_owned());
                None
            },
            &mut String::new(),
        );
        let number = numbers.into_iter().find(|group| *group >= groups);
        let name = names.into_iter().find(|name| self.group(name).is_none());
        number.map(|group| group.to_string()).or(name)
    }

    fn group(&self, name: &str) -> Option<usize> {
        self.search.capture_names().position(|n| n == Some(name))
    }

    /// `name` with all matches replaced, or what is wrong with it.
    fn rewritten(&self, name: &str) -> std::result::Result<Name, String> {
        if name.len() > MOST_NAME_BYTES {
            return Err(format!(
                "it matches, but the name has {} bytes; at most {MOST_NAME_BYTES} can be searched",
                name.len()
            ));
        }
        let mut new = String::new();
        let mut end = 0;
        for captures in self.search.captures_iter(name) {
            let found = captures.get(0).expect("group 0 is the match");
            new.push_str(&name[end..found.start()]);
            let append = |group, new: &mut String| {
                // What is too long already is refused below.
                if let Some(text) = captures.get(group)
                    && new.len() <= MOST_NAME_BYTES
                {
                    new.push_str(text.as_str());
                }
            };
            interpolate::string(&self.replacement, append, |name| self.group(name), &mut new);
            end = found.end();
            if new.len() > MOST_NAME_BYTES {
                break;
            }
        }
        new.push_str(&name[end..]);
        match new.len() {
            0 => Err("it would leave nothing of this name".to_owned()),
            1..=MOST_NAME_BYTES if new == RESERVED => Err(format!(
                "it would call it {RESERVED}, which no tensor can be called"
            )),
            1..=MOST_NAME_BYTES => Ok(new.into()),
            len => Err(format!(
                "the new name would have {len} bytes or more; at most {MOST_NAME_BYTES} are allowed"
            )),
        }
    }
}

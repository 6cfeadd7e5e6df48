//! Requests, made of what keyword arguments say.

use std::path::PathBuf;

use ckptfs::ops::{Setting, Takes, Value, named_file, selective_source, weighted_source};
use ckptfs::recipe::{Shards, ViewRequest, Wanted, parse_shard_size};
use ckptfs::source::Location;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A keyword argument that a setting has: it has the name of a flag.
#[derive(Debug)]
struct Keyword {
    name: String,
    setting: &'static Setting,
    /// What a value of it is called, or stands for.
    stands_for: StandsFor,
}

#[derive(Debug, Clone, Copy)]
enum StandsFor {
    /// The setting's value.
    Value,
    /// On, and the values of other settings that come with it.
    On(&'static [(&'static str, &'static str)]),
    /// This name, of all or of what a regular expression matches.
    Name(&'static str),
}

/// The keyword arguments of all settings, in the order of the flags.
fn keywords() -> Vec<Keyword> {
    let mut keywords = Vec::new();
    for setting in ViewRequest::settings() {
        let mut add = |flag: &str, stands_for| {
            keywords.push(Keyword {
                name: flag.replace('-', "_"),
                setting,
                stands_for,
            });
        };
        match setting.takes {
            Takes::Switch => add(setting.flag, StandsFor::On(&[])),
            Takes::SwitchOrChoice { flag, also, .. } => {
                add(setting.flag, StandsFor::On(also));
                add(flag, StandsFor::Value);
            }
            Takes::ScopedFlags(flags) => {
                for (name, flag, _) in flags {
                    add(flag, StandsFor::Name(name));
                }
            }
            _ => add(setting.flag, StandsFor::Value),
        }
    }
    keywords
}

/// Name, kind, name of a value, possible values and help of each keyword argument, and its former name.
type SettingRow = (
    String,
    &'static str,
    &'static str,
    Vec<&'static str>,
    &'static str,
    Option<String>,
);

/// What keyword arguments a view has.
#[pyfunction]
pub(crate) fn settings() -> Vec<SettingRow> {
    let former = ViewRequest::former_flags();
    let rows = keywords().into_iter().map(|keyword| {
        let names = |names: &[&[&'static str]]| names.iter().map(|names| names[0]).collect();
        let (kind, value, choices, help) = match (keyword.setting.takes, keyword.stands_for) {
            (Takes::ScopedFlags(flags), StandsFor::Name(name)) => {
                let (.., help) = flags
                    .iter()
                    .find(|(known, ..)| *known == name)
                    .expect("it is one");
                ("scope", "REGEX", Vec::new(), *help)
            }
            (_, StandsFor::On(_)) => ("switch", "", Vec::new(), keyword.setting.help),
            (
                Takes::SwitchOrChoice {
                    names: all, help, ..
                },
                _,
            ) => ("text", "CHOICE", names(all), help),
            (takes, _) => {
                let (kind, value, choices) = match takes {
                    Takes::Choice(all) => ("text", "CHOICE", names(all)),
                    Takes::Number(what) => ("number", what, Vec::new()),
                    Takes::Text(what) => ("text", what, Vec::new()),
                    Takes::Texts(what) => ("texts", what, Vec::new()),
                    Takes::File => ("file", "FILE", Vec::new()),
                    Takes::Files => ("files", "NAME=PATH", Vec::new()),
                    Takes::Sources => ("sources", "DIR", Vec::new()),
                    Takes::WeightedSources => ("weighted", "DIR[:WEIGHT]", Vec::new()),
                    Takes::SelectiveSources => ("selective", "DIR[:REGEX]", Vec::new()),
                    _ => unreachable!("they are above"),
                };
                (kind, value, choices, keyword.setting.help)
            }
        };
        let former = former
            .iter()
            .find(|(now, _)| now.replace('-', "_") == keyword.name);
        let former = former.map(|(_, former)| former.replace('-', "_"));
        (keyword.name, kind, value, choices, help, former)
    });
    rows.collect()
}

/// A value of a keyword argument.
#[derive(Debug, FromPyObject)]
pub(crate) enum Given {
    Switch(bool),
    Number(u64),
    /// As on a command line.
    Text(String),
    /// A path as it is, with a weight.
    Weighted(PathBuf, f64),
    /// A path or a name as it is, with a regular expression or a path.
    Pair(PathBuf, Option<String>),
}

/// What is asked for, by base, recipe, models, keyword arguments with their values, shards and the
/// size of a shard.
#[derive(Debug, FromPyObject)]
pub(crate) struct Arguments {
    #[pyo3(item)]
    base: Option<PathBuf>,
    #[pyo3(item)]
    recipe: Option<PathBuf>,
    #[pyo3(item)]
    models: Vec<(String, PathBuf)>,
    #[pyo3(item)]
    asked: Vec<(String, Given)>,
    /// `repack`, `no_repack` or `single_file`.
    #[pyo3(item)]
    shards: Option<String>,
    #[pyo3(item)]
    shard_size: Option<String>,
}

impl Arguments {
    pub(crate) fn wanted(self) -> PyResult<Wanted> {
        let keywords = keywords();
        let mut asked = Vec::new();
        for (name, given) in self.asked {
            let keyword = keywords.iter().find(|keyword| keyword.name == name);
            let keyword = keyword.ok_or_else(|| bad(&name, "there is no such argument".into()))?;
            let key = keyword.setting.key;
            if let (StandsFor::On(also), Given::Switch(true)) = (keyword.stands_for, &given) {
                let also = also.iter();
                asked.extend(also.map(|(key, value)| (*key, Value::text(*value))));
            }
            let value = value(keyword, given).map_err(|problem| bad(&name, problem))?;
            asked.push((key, value));
        }
        let shards = self.shards.map(|word| match &*word {
            "repack" => Shards::Repack,
            "no_repack" => Shards::Keep,
            _ => Shards::Single,
        });
        let size = self.shard_size.map(|text| parse_shard_size(&text));
        Ok(Wanted {
            base: self.base,
            recipe: self.recipe,
            models: self
                .models
                .into_iter()
                .map(|(id, path)| (id, Location::from(path)))
                .collect(),
            asked,
            shards,
            shard_bytes: size
                .transpose()
                .map_err(|problem| bad("shard_size", problem))?,
        })
    }
}

fn bad(name: &str, problem: String) -> PyErr {
    PyValueError::new_err(format!("{name}: {problem}"))
}

/// The value that `given` is for `keyword`.
fn value(keyword: &Keyword, given: Given) -> Result<Value, String> {
    let source = |path: PathBuf| Value::Source {
        location: Location::from(path),
        weight: 1.0,
        names: None,
    };
    Ok(match (keyword.stands_for, keyword.setting.takes, given) {
        (StandsFor::On(_), _, Given::Switch(on)) => Value::Switch(on),
        (StandsFor::Name(name), _, Given::Switch(_)) => Value::text(name),
        (StandsFor::Name(name), _, Given::Text(scope)) => Value::Scoped {
            name: name.to_owned(),
            scope,
        },
        (_, Takes::Number(_), Given::Number(number)) => Value::Number(number),
        (_, Takes::File, Given::Pair(path, None)) => Value::File {
            name: None,
            from: Location::from(path),
        },
        (_, Takes::Files, Given::Text(text)) => named_file(&text)?,
        (_, Takes::Files, Given::Pair(name, Some(path))) => Value::File {
            name: Some(name.to_string_lossy().into_owned()),
            from: Location::from(PathBuf::from(path)),
        },
        (_, Takes::WeightedSources, Given::Text(text)) => weighted_source(&text)?,
        (_, Takes::WeightedSources, Given::Weighted(path, weight)) if weight.is_finite() => {
            Value::Source {
                location: Location::from(path),
                weight,
                names: None,
            }
        }
        (_, Takes::SelectiveSources, Given::Text(text)) => selective_source(&text),
        (_, Takes::SelectiveSources, Given::Pair(path, names)) => Value::Source {
            location: Location::from(path),
            weight: 1.0,
            names,
        },
        (_, takes, Given::Text(text)) if takes_sources(takes) => source(text.into()),
        (_, takes, Given::Pair(path, None)) if takes_sources(takes) => source(path),
        (_, _, Given::Text(text)) => Value::Text(text),
        (_, _, given) => return Err(format!("{given:?} is not a value of it")),
    })
}

fn takes_sources(takes: Takes) -> bool {
    matches!(
        takes,
        Takes::Sources | Takes::WeightedSources | Takes::SelectiveSources
    )
}

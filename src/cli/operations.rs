//! Flags that are made from what the operators and the view say of their settings.

use std::path::Path;

use clap::builder::{PathBufValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

use ckptfs::ops::{Group, Operations, Setting, Takes, Value};
use ckptfs::recipe::ViewRequest;
use ckptfs::source::Location;

use crate::cli::messages::problem_of_value;

/// The group of all these flags.
pub(crate) const OPERATION_FLAGS: &str = "operations";

/// What is asked by these flags.
#[derive(Debug, Clone)]
pub(crate) struct OperationArgs {
    /// By the key of the setting, as typed.
    asked: Vec<(&'static str, Value)>,
}

impl OperationArgs {
    /// The sources that it names, as typed.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Location> {
        self.asked.iter().filter_map(|(_, value)| match value {
            Value::Source { location, .. } => Some(location),
            Value::Switch(_) | Value::Text(_) => None,
        })
    }

    /// Asks it of `request`: what is one thing replaces what is there, lists go on. `find` says
    /// where a source is.
    pub(crate) fn ask(
        &self,
        request: &mut ViewRequest,
        find: impl Fn(&Location) -> ckptfs::Result<Location>,
    ) -> ckptfs::Result<()> {
        for (key, value) in &self.asked {
            let value = match value {
                Value::Source {
                    location,
                    weight,
                    names,
                } => Value::Source {
                    location: find(location)?,
                    weight: *weight,
                    names: names.clone(),
                },
                other => other.clone(),
            };
            request.set(key, value)?;
        }
        Ok(())
    }
}

impl Args for OperationArgs {
    fn augment_args(mut command: Command) -> Command {
        let mut group = ArgGroup::new(OPERATION_FLAGS).multiple(true);
        for setting in ViewRequest::settings() {
            for flag in flags(setting) {
                group = group.arg(flag.get_id());
                command = command.arg(flag.help_heading(heading(setting.group)));
            }
        }
        command.group(group)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OperationArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut asked = Vec::new();
        for setting in ViewRequest::settings() {
            let values = match setting.takes {
                Takes::Switch => {
                    let on = matches.get_flag(setting.key);
                    on.then_some(Value::Switch(true)).into_iter().collect()
                }
                Takes::Flags(names) => {
                    let given = names.iter().filter(|(_, flag, _)| matches.get_flag(flag));
                    given
                        .map(|(name, ..)| Value::Text((*name).to_owned()))
                        .collect()
                }
                Takes::Choice(_) | Takes::Texts(_) => {
                    let texts = matches.get_many::<String>(setting.key);
                    let texts = texts.into_iter().flatten().cloned();
                    texts.map(Value::Text).collect()
                }
                Takes::Sources | Takes::WeightedSources | Takes::SelectiveSources => {
                    let sources = matches.get_many::<Value>(setting.key);
                    let sources = sources.into_iter().flatten().cloned();
                    sources.collect::<Vec<_>>()
                }
            };
            asked.extend(values.into_iter().map(|value| (setting.key, value)));
        }
        Ok(OperationArgs { asked })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What flags are listed under.
pub(crate) const fn heading(group: Group) -> &'static str {
    match group {
        Group::Sources => "Sources",
        Group::Tensors => "Changes to tensors",
        Group::Quantization => "Quantization",
        Group::Shards => "Shards",
    }
}

/// The flags of a setting.
fn flags(setting: &'static Setting) -> impl Iterator<Item = Arg> {
    let flag = |id, name, help| Arg::new(id).long(name).help(help);
    let one = || flag(setting.key, setting.flag, setting.help);
    match setting.takes {
        Takes::Switch => vec![one().action(ArgAction::SetTrue)],
        Takes::Flags(names) => {
            let flags = names.iter().map(|(name, long, help)| {
                let others = names.iter().filter(|(other, ..)| other != name);
                flag(*long, *long, *help)
                    .action(ArgAction::SetTrue)
                    .conflicts_with_all(others.map(|(_, long, _)| *long))
            });
            flags.collect()
        }
        Takes::Choice(names) => {
            let names = names.iter().map(|names| {
                let (first, others) = names.split_first().expect("each has a name");
                PossibleValue::new(*first).aliases(others.iter().copied())
            });
            vec![
                one()
                    .value_parser(PossibleValuesParser::new(names))
                    .ignore_case(true),
            ]
        }
        Takes::Texts(what) => {
            let accepted = |text: &str| {
                let mut nothing = Operations::default();
                let set = nothing.set(setting.key, Value::Text(text.to_owned()));
                set.map(|()| text.to_owned())
                    .map_err(|error| problem_of_value(&error))
            };
            vec![
                one()
                    .value_name(what)
                    .action(ArgAction::Append)
                    .value_parser(accepted),
            ]
        }
        Takes::Sources => {
            let source = |path| Value::Source {
                location: Location::from(path),
                weight: 1.0,
                names: None,
            };
            vec![
                one()
                    .value_name("DIR")
                    .action(ArgAction::Append)
                    .value_parser(PathBufValueParser::new().map(source)),
            ]
        }
        Takes::WeightedSources => vec![
            one()
                .value_name("DIR[:WEIGHT]")
                .action(ArgAction::Append)
                .value_parser(weighted),
        ],
        Takes::SelectiveSources => {
            let accepted = |text: &str| {
                let value = selective(text, |path| Path::new(path).exists());
                let mut nothing = Operations::default();
                let set = nothing.set(setting.key, value.clone());
                set.map(|()| value)
                    .map_err(|error| problem_of_value(&error))
            };
            vec![
                one()
                    .value_name("DIR[:REGEX]")
                    .action(ArgAction::Append)
                    .value_parser(accepted),
            ]
        }
    }
    .into_iter()
}

/// `DIR`, or `DIR:WEIGHT` where what is behind the last colon is a number.
fn weighted(text: &str) -> Result<Value, String> {
    let (path, weight) = match text.rsplit_once(':') {
        Some((path, weight)) => match weight.parse() {
            Ok(weight) => (path, weight),
            Err(_) => (text, 1.0),
        },
        None => (text, 1.0),
    };
    if f64::is_finite(weight) {
        Ok(Value::Source {
            location: path.into(),
            weight,
            names: None,
        })
    } else {
        Err(format!("the weight {weight} is not finite"))
    }
}

/// `DIR`, or `DIR:REGEX`: split at the first colon before which there is a path that `exists` (it may
/// have colons itself), or else at the first one. That of `scheme://` is none.
fn selective(text: &str, exists: impl Fn(&str) -> bool) -> Value {
    let source = |path: &str, names: Option<&str>| Value::Source {
        location: path.into(),
        weight: 1.0,
        names: names.map(str::to_owned),
    };
    let colons = text.match_indices(':').map(|(at, _)| at);
    let colons: Vec<usize> = colons
        .filter(|at| !text[*at..].starts_with("://"))
        .collect();
    let of_path = || colons.iter().find(|at| exists(&text[..**at]));
    match of_path().or(colons.first()) {
        Some(at) if !exists(text) => source(&text[..*at], Some(&text[at + 1..])),
        _ => source(text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_begins_behind_the_first_colon_that_is_not_of_the_path() {
        let there = ["/m", "/a:b", "/a"];
        for (text, path, names) in [
            ("/m", "/m", None),
            ("/m:x", "/m", Some("x")),
            ("/m:(?:a|b)", "/m", Some("(?:a|b)")),
            ("/a:b", "/a:b", None),
            ("/a:b:c:d", "/a", Some("b:c:d")),
            ("org/model:x:y", "org/model", Some("x:y")),
            ("s3://bucket/m:x", "s3://bucket/m", Some("x")),
            ("s3://bucket/m", "s3://bucket/m", None),
        ] {
            let expected = Value::Source {
                location: path.into(),
                weight: 1.0,
                names: names.map(str::to_owned),
            };
            assert_eq!(selective(text, |path| there.contains(&path)), expected);
        }
    }
}

//! Flags that are made from what the operators and the view say of their settings.

use std::path::Path;

use clap::builder::{PathBufValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

use ckptfs::error::Code;
use ckptfs::ops::{Group, Operations, Setting, Takes, Value, named_file};
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
        self.asked.iter().filter_map(|(_, value)| value.location())
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
                Value::File { name, from } => Value::File {
                    name: name.clone(),
                    from: absolute(from),
                },
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
        let former = ViewRequest::former_flags();
        for setting in ViewRequest::settings() {
            for flag in flags(setting) {
                let name = flag.get_long().map(str::to_owned);
                let names = former
                    .iter()
                    .filter(|(now, _)| name.as_deref() == Some(*now));
                let flag = flag.visible_aliases(names.map(|(_, former)| *former));
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
            // By position on the command line: edits are made in their order.
            let positions: Vec<usize> = match setting.takes {
                Takes::ScopedFlags(_) | Takes::SwitchOrChoice { .. } | Takes::Switch => Vec::new(),
                _ => matches
                    .indices_of(setting.key)
                    .into_iter()
                    .flatten()
                    .collect(),
            };
            let values = match setting.takes {
                Takes::SwitchOrChoice { flag, also, .. } => {
                    let on = matches.get_flag(setting.key);
                    let named = matches.get_one::<String>(flag);
                    if on {
                        let also = also.iter();
                        asked.extend(also.map(|(key, value)| (0, (*key, Value::text(*value)))));
                    }
                    let on = on.then_some(Value::Switch(true));
                    on.into_iter()
                        .chain(named.cloned().map(Value::Text))
                        .collect()
                }
                Takes::ScopedFlags(names) => scoped(names, matches)?,
                Takes::Switch => {
                    let on = matches.get_flag(setting.key);
                    on.then_some(Value::Switch(true)).into_iter().collect()
                }
                Takes::Number(_) => {
                    let number = matches.get_one::<u64>(setting.key);
                    number.copied().map(Value::Number).into_iter().collect()
                }
                Takes::Choice(_) | Takes::Text(_) | Takes::Texts(_) => {
                    let texts = matches.get_many::<String>(setting.key);
                    let texts = texts.into_iter().flatten().cloned();
                    texts.map(Value::Text).collect()
                }
                Takes::File
                | Takes::Files
                | Takes::Sources
                | Takes::WeightedSources
                | Takes::SelectiveSources => {
                    let sources = matches.get_many::<Value>(setting.key);
                    let sources = sources.into_iter().flatten().cloned();
                    sources.collect::<Vec<_>>()
                }
            };
            let values = values.into_iter().enumerate();
            asked.extend(values.map(|(i, value)| {
                let position = positions.get(i).copied().unwrap_or_default();
                (position, (setting.key, value))
            }));
        }
        asked.sort_by_key(|(position, _)| *position);
        let asked = asked.into_iter().map(|(_, asked)| asked).collect();
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
        Group::Files => "Changes to config and other files",
        Group::Tensors => "Changes to tensors",
        Group::Quantization => "Quantization",
        Group::Shards => "Shards",
        Group::Gguf => "GGUF",
    }
}

/// The flags of a setting.
fn flags(setting: &'static Setting) -> impl Iterator<Item = Arg> {
    let flag = |id, name, help| Arg::new(id).long(name).help(help);
    let one = || flag(setting.key, setting.flag, setting.help);
    match setting.takes {
        Takes::ScopedFlags(names) => {
            let flags = names.iter().map(|(name, long, help)| {
                let scoped = |scope: &str| Value::Scoped {
                    name: (*name).to_owned(),
                    scope: scope.to_owned(),
                };
                // What follows a space may be a mountpoint.
                flag(*long, *long, *help)
                    .value_name("REGEX")
                    .num_args(0..=1)
                    .require_equals(true)
                    .action(ArgAction::Append)
                    .value_parser(move |text: &str| accepted(setting, text, scoped(text)))
            });
            flags.collect()
        }
        Takes::Choice(names) => vec![choice(one().value_name("CHOICE"), names)],
        Takes::Switch => vec![one().action(ArgAction::SetTrue)],
        Takes::Number(what) => vec![one().value_name(what).value_parser(|text: &str| {
            let number: u64 = text
                .parse()
                .map_err(|_| format!("{text} is not a whole number"))?;
            accepted(setting, text, Value::Number(number)).map(|_| number)
        })],
        Takes::SwitchOrChoice {
            flag: long,
            names,
            help,
            also,
        } => {
            let named = choice(flag(long, long, help), names);
            let excluded = also.iter().map(|(key, _)| *key);
            let switch = one()
                .action(ArgAction::SetTrue)
                .conflicts_with_all(excluded);
            vec![switch, named]
        }
        Takes::Text(what) => {
            vec![
                one().value_name(what).value_parser(|text: &str| {
                    accepted(setting, text, Value::Text(text.to_owned()))
                }),
            ]
        }
        Takes::Texts(what) => {
            vec![
                one()
                    .value_name(what)
                    .action(ArgAction::Append)
                    .value_parser(|text: &str| {
                        accepted(setting, text, Value::Text(text.to_owned()))
                    }),
            ]
        }
        Takes::Files => vec![
            one()
                .value_name("NAME=PATH")
                .action(ArgAction::Append)
                .value_parser(named_file),
        ],
        Takes::File => {
            let file = |path| Value::File {
                name: None,
                from: Location::from(path),
            };
            vec![
                one()
                    .value_name("FILE")
                    .value_parser(PathBufValueParser::new().map(file)),
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

/// `text`, if `setting` takes `value`, which is made of it.
fn accepted(setting: &Setting, text: &str, value: Value) -> Result<String, String> {
    match Operations::default().set(setting.key, value) {
        Err(error) if error.code() != Code::Conflict => Err(problem_of_value(&error)),
        // Whether it goes with what stands before it shows once all is asked.
        _ => Ok(text.to_owned()),
    }
}

/// The flags among `names` that are given, with their scopes.
fn scoped(
    names: &[(&str, &'static str, &str)],
    matches: &ArgMatches,
) -> Result<Vec<Value>, clap::Error> {
    let mut values = Vec::new();
    let mut without_scope: Option<&str> = None;
    for (name, flag, _) in names {
        let given = matches.get_occurrences::<String>(flag);
        for mut scopes in given.into_iter().flatten() {
            let name = (*name).to_owned();
            if let Some(scope) = scopes.next() {
                let scope = scope.clone();
                values.push(Value::Scoped { name, scope });
                continue;
            }
            if let Some(other) = without_scope.replace(flag).filter(|other| other != flag) {
                let problem = format!(
                    "the argument '--{flag}' cannot be used with '--{other}' unless one of them has a scope, '--{flag}=REGEX'\n"
                );
                return Err(clap::Error::raw(ErrorKind::ArgumentConflict, problem));
            }
            values.push(Value::Text(name));
        }
    }
    Ok(values)
}

/// A flag that takes one of `names`.
fn choice(flag: Arg, names: &[&'static [&'static str]]) -> Arg {
    let names = names.iter().map(|names| {
        let (first, others) = names.split_first().expect("each has a name");
        PossibleValue::new(*first).aliases(others.iter().copied())
    });
    flag.value_parser(PossibleValuesParser::new(names))
        .ignore_case(true)
}

/// A view outlives the working directory of the command that made it.
fn absolute(location: &Location) -> Location {
    match location.local() {
        Some(path) => Location::Local(std::path::absolute(path).unwrap_or_else(|_| path.into())),
        None => location.clone(),
    }
}

/// The length of `scheme://host:port` at the start of `text`, whose colons separate nothing here; 0 for a path.
fn authority_len(text: &str) -> usize {
    let Location::Url(url) = Location::from(text) else {
        return 0;
    };
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url.len(), |len| host + len)
}

/// `DIR`, or `DIR:WEIGHT` if the text after the last colon is a number.
fn weighted(text: &str) -> Result<Value, String> {
    let (path, weight) = match text.rsplit_once(':') {
        Some((path, weight)) if path.len() >= authority_len(text) => match weight.parse() {
            Ok(weight) => (path, weight),
            Err(_) => (text, 1.0),
        },
        _ => (text, 1.0),
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
/// have colons itself), or else at the first one. Those of `scheme://host:port` are none.
fn selective(text: &str, exists: impl Fn(&str) -> bool) -> Value {
    let source = |path: &str, names: Option<&str>| Value::Source {
        location: path.into(),
        weight: 1.0,
        names: names.map(str::to_owned),
    };
    let colons = text.match_indices(':').map(|(at, _)| at);
    let authority = authority_len(text);
    let colons: Vec<usize> = colons.filter(|at| *at >= authority).collect();
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
    fn a_weight_begins_behind_the_last_colon_and_a_port_is_none() {
        for (text, path, number) in [
            ("/m", "/m", 1.0),
            ("/m:0.5", "/m", 0.5),
            ("s3://bucket/m:2", "s3://bucket/m", 2.0),
            ("http://host:80", "http://host:80", 1.0),
            ("http://host:80/m:3", "http://host:80/m", 3.0),
        ] {
            let expected = Value::Source {
                location: path.into(),
                weight: number,
                names: None,
            };
            assert_eq!(weighted(text), Ok(expected), "{text}");
        }
    }

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
            ("http://host:1/m", "http://host:1/m", None),
            ("http://host:1/m:x:y", "http://host:1/m", Some("x:y")),
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

//! Flags that are made from what the operators and the view say of their settings.

use clap::builder::{PathBufValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

use ckptfs::error::Code;
use ckptfs::ops::{
    Group, Operations, Setting, Takes, Value, named_file, selective_source, weighted_source,
};
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

    /// By the key of the setting, as typed.
    pub(crate) fn asked(&self) -> &[(&'static str, Value)] {
        &self.asked
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
                .value_parser(weighted_source),
        ],
        Takes::SelectiveSources => {
            let accepted = |text: &str| {
                let value = selective_source(text);
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

//! Flags of the operators, made from what these say of their settings.

use clap::builder::{PathBufValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

use ckptfs::error::Code;
use ckptfs::ops::{Group, Operations, Setting, Takes, Value, named_file};
use ckptfs::source::Location;

use crate::cli::messages::problem_of_value;

/// The group of all these flags.
pub(crate) const OPERATION_FLAGS: &str = "operations";

/// What is asked of the operators.
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

    /// Asks it of `operations`: what is one thing replaces what is there, lists go on. `find` says
    /// where a source is.
    pub(crate) fn ask(
        &self,
        operations: &mut Operations,
        find: impl Fn(&Location) -> ckptfs::Result<Location>,
    ) -> ckptfs::Result<()> {
        for (key, value) in &self.asked {
            let value = match value {
                Value::File { name, from } => Value::File {
                    name: name.clone(),
                    from: absolute(from),
                },
                Value::Source { location, weight } => Value::Source {
                    location: find(location)?,
                    weight: *weight,
                },
                other => other.clone(),
            };
            operations.set(key, value)?;
        }
        Ok(())
    }
}

/// The settings of all operators.
fn settings() -> Vec<&'static Setting> {
    let operations = Operations::default();
    let settings = operations.each().flat_map(|params| params.settings());
    settings.collect()
}

impl Args for OperationArgs {
    fn augment_args(mut command: Command) -> Command {
        let mut group = ArgGroup::new(OPERATION_FLAGS).multiple(true);
        for setting in settings() {
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
        for setting in settings() {
            // By position on the command line: edits are made in their order.
            let positions: Vec<usize> = match setting.takes {
                Takes::Flags(_) => Vec::new(),
                _ => matches
                    .indices_of(setting.key)
                    .into_iter()
                    .flatten()
                    .collect(),
            };
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
                Takes::Files | Takes::Sources | Takes::WeightedSources => {
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
                match nothing.set(setting.key, Value::Text(text.to_owned())) {
                    Err(error) if error.code() != Code::Conflict => Err(problem_of_value(&error)),
                    // Whether it goes with what stands before it shows once all is asked.
                    _ => Ok(text.to_owned()),
                }
            };
            vec![
                one()
                    .value_name(what)
                    .action(ArgAction::Append)
                    .value_parser(accepted),
            ]
        }
        Takes::Files => vec![
            one()
                .value_name("NAME=PATH")
                .action(ArgAction::Append)
                .value_parser(named_file),
        ],
        Takes::Sources => {
            let source = |path| Value::Source {
                location: Location::from(path),
                weight: 1.0,
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
    }
    .into_iter()
}

/// A view outlives the working directory of the command that made it.
fn absolute(location: &Location) -> Location {
    match location.local() {
        Some(path) => Location::Local(std::path::absolute(path).unwrap_or_else(|_| path.into())),
        None => location.clone(),
    }
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
        })
    } else {
        Err(format!("the weight {weight} is not finite"))
    }
}

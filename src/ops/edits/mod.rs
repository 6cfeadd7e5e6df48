//! Edits of config.json and other files that are not weights. No tensor changes.
//!
//! They apply to the base, or to the result of a merge, before all other operators: a view with edits
//! is the view of an edited base. So the other operators see what was set, and what an edit says
//! of what they write themselves is refused at the end.

mod change;
mod check;
mod document;
mod editing;
mod files;
mod target;

use std::path::Path;

use serde_json::value::RawValue;

use crate::error::setting::{ADD_FILE, DROP_FILE, KEEP, PROMOTE, SET, UNSET};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::edits::change::Change;
use crate::ops::edits::editing::Edits;
use crate::ops::edits::files::Glob;
use crate::ops::edits::target::Target;
use crate::ops::{Conversions, Group, Operator, Params, Section, Setting, Takes, Value};
use crate::source::Location;

/// Edit files other than the weights, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EditsParams {
    pub edits: Vec<Edit>,
}

/// A change of a file that is not weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// `[FILE:]PATH=JSON`: set a key.
    Set(String),
    /// `[FILE:]PATH`: remove a key.
    Unset(String),
    /// Make the object under a key the top level.
    Promote {
        /// `[FILE:]PATH`
        from: String,
        /// Keys of the old top level that stay.
        keep: Vec<String>,
    },
    /// Add a file, or replace one.
    AddFile { name: String, from: Location },
    /// Leave out what a pattern of paths matches.
    DropFile(String),
}

const SETTINGS: &[Setting] = &[
    Setting {
        key: SET,
        flag: "set",
        takes: Takes::Texts("[FILE:]PATH=JSON"),
        group: Group::Files,
        help: "Set a key of config.json, or of another JSON file, such as text_config.rope_theta=1e6 (repeatable; edits are made in their order)",
        comment: "",
    },
    Setting {
        key: UNSET,
        flag: "unset",
        takes: Takes::Texts("[FILE:]PATH"),
        group: Group::Files,
        help: "Remove a key or item of such a file (repeatable)",
        comment: "",
    },
    Setting {
        key: PROMOTE,
        flag: "promote",
        takes: Takes::Texts("[FILE:]KEY"),
        group: Group::Files,
        help: "Replace the content of config.json by the object under KEY, such as text_config (repeatable)",
        comment: "",
    },
    Setting {
        key: KEEP,
        flag: "keep",
        takes: Takes::Texts("KEYS"),
        group: Group::Files,
        help: "Keep these keys, such as architectures,torch_dtype, of what the --promote before it replaces (repeatable)",
        comment: "",
    },
    Setting {
        key: ADD_FILE,
        flag: "add-file",
        takes: Takes::Files,
        group: Group::Files,
        help: "Add the file PATH, which may be a URL, as NAME, or put it in the place of the base's (repeatable)",
        comment: "",
    },
    Setting {
        key: DROP_FILE,
        flag: "drop-file",
        takes: Takes::Texts("GLOB"),
        group: Group::Files,
        help: "Leave out files that GLOB matches, never shards or an index (repeatable)",
        comment: "",
    },
];

impl Params for EditsParams {
    fn settings(&self) -> &'static [Setting] {
        SETTINGS
    }

    fn section(&self) -> Option<&'static Section> {
        Some(&Section {
            former_key: None,
            named: None,
            key: "edits",
            selecting: &[],
            in_order: Some(&[KEEP]),
            comment: "of config.json and other files, in this order",
        })
    }

    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let edit = match key {
            SET => Edit::Set(value.into_text()),
            UNSET => Edit::Unset(value.into_text()),
            PROMOTE => Edit::Promote {
                from: value.into_text(),
                keep: Vec::new(),
            },
            KEEP => return self.keep(value.into_text()),
            ADD_FILE => {
                let (name, from) = value.into_file();
                Edit::AddFile { name, from }
            }
            _ => Edit::DropFile(value.into_text()),
        };
        edit.parse()?;
        self.edits.push(edit);
        Ok(())
    }

    fn get(&self, key: &str) -> Vec<Value> {
        let asked = self.asked().into_iter();
        let asked = asked.filter(|(setting, _)| setting.key == key);
        asked.map(|(_, value)| value).collect()
    }

    fn asked(&self) -> Vec<(&'static Setting, Value)> {
        let edits = self.edits.iter().flat_map(|edit| match edit {
            Edit::Set(text) => vec![(SET, Value::text(text))],
            Edit::Unset(text) => vec![(UNSET, Value::text(text))],
            Edit::Promote { from, keep } => {
                let keep = (!keep.is_empty()).then(|| (KEEP, Value::text(target::list(keep))));
                let promote = std::iter::once((PROMOTE, Value::text(from)));
                promote.chain(keep).collect()
            }
            Edit::AddFile { name, from } => {
                let (name, from) = (Some(name.clone()), from.clone());
                vec![(ADD_FILE, Value::File { name, from })]
            }
            Edit::DropFile(glob) => vec![(DROP_FILE, Value::text(glob))],
        });
        let setting = |key| SETTINGS.iter().find(|setting| setting.key == key);
        let edits = edits.filter_map(|(key, value)| Some((setting(key)?, value)));
        edits.collect()
    }

    fn relative_to(&mut self, directory: &Path) {
        for edit in &mut self.edits {
            if let Edit::AddFile { from, .. } = edit {
                *from = from.clone().relative_to(directory);
            }
        }
    }

    fn keeps_shards(&self) -> bool {
        true
    }

    fn operators(&self, _: &Conversions) -> Result<Vec<Box<dyn Operator>>> {
        let changes = self.edits.iter().map(Edit::parse);
        let changes: Vec<Change> = changes.collect::<Result<_>>()?;
        Ok(vec![Box::new(Edits { changes })])
    }
}

impl EditsParams {
    /// Keeps `keys` when the object of the last edit is promoted.
    fn keep(&mut self, keys: String) -> Result<()> {
        let kept = target::keys(&keys).map_err(|problem| refused(KEEP, &keys, problem))?;
        let Some(Edit::Promote { keep, .. }) = self.edits.last_mut() else {
            let problem = "there is nothing before it that replaces the top level";
            let error = Error::new(Code::Conflict, problem).about_value(KEEP, keys);
            return Err(error.with_hint(Hint::give(PROMOTE).to("replace it, right before this")));
        };
        keep.extend(kept);
        Ok(())
    }
}

impl Edit {
    /// The change that it asks for.
    ///
    /// # Errors
    /// If what it says cannot be understood.
    fn parse(&self) -> Result<Change> {
        match self {
            Edit::Set(text) => set(text),
            Edit::Unset(text) => {
                let target = Target::parse(text).map_err(|e| refused(UNSET, text, e))?;
                Ok(Change::Unset(target))
            }
            Edit::Promote { from, keep } => {
                let target = Target::parse(from).map_err(|e| refused(PROMOTE, from, e))?;
                let keep = keep.clone();
                Ok(Change::Promote { target, keep })
            }
            Edit::AddFile { name, from } => {
                files::check_path(name).map_err(|e| refused(ADD_FILE, name, e))?;
                Ok(Change::Add {
                    name: name.clone(),
                    from: from.clone(),
                })
            }
            Edit::DropFile(glob) => Ok(Change::Drop {
                glob: Glob::new(DROP_FILE, glob)?,
                text: glob.clone(),
            }),
        }
    }
}

fn refused(setting: &'static str, text: &str, problem: String) -> Error {
    Error::new(Code::BadValue, problem).about_value(setting, text)
}

/// `[FILE:]PATH=JSON`
fn set(text: &str) -> Result<Change> {
    let (target, rest) = Target::parse_start(text).map_err(|e| refused(SET, text, e))?;
    let Some(value) = rest.strip_prefix('=') else {
        let problem =
            "expected [FILE:]PATH=JSON, for example max_position_embeddings=131072".to_owned();
        return Err(refused(SET, text, problem));
    };
    let value = value.trim();
    if let Err(error) = serde_json::from_str::<&RawValue>(value) {
        let start = &text[..text.len() - rest.len()];
        return Err(no_json(text, start, value, &error));
    }
    Ok(Change::Set {
        target,
        value: value.to_owned(),
    })
}

/// The error about `value`, which is not JSON, of the edit `text` that begins with the target
/// `start`.
fn no_json(text: &str, start: &str, value: &str, error: &serde_json::Error) -> Error {
    let in_shell = |value: &str| {
        let value = format!("{start}={value}");
        format!("'{}'", value.replace('\'', r"'\''"))
    };
    let meant = match value {
        "True" => Some("true"),
        "False" => Some("false"),
        "None" => Some("null"),
        _ => None,
    };
    // What is text to people, and no number, list or the like with a mistake in it.
    let is_text = value.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '/' | '<'));
    let as_text = serde_json::Value::from(value).to_string();
    if let Some(meant) = meant {
        let hint = Hint::give_value(SET, in_shell(meant));
        let hint = hint.or(Hint::give_value(SET, in_shell(&as_text)).to("give the text"));
        return refused(SET, text, format!("{value} is not JSON")).with_hint(hint);
    }
    if is_text {
        let problem = format!(
            "{value} is not JSON: text needs double quotes, and single quotes around them in a shell"
        );
        return refused(SET, text, problem).with_hint(Hint::give_value(SET, in_shell(&as_text)));
    }
    let problem = match value {
        "" => "there is no value after the =".to_owned(),
        _ => format!("the value is not JSON: {error}"),
    };
    refused(SET, text, problem)
}

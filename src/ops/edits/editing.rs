//! Making edits.

use std::sync::Arc;

use crate::catalog::{CONFIG_FILE, Catalog, Config, FileChange, FileEdit};
use crate::error::setting::{ADD_FILE, DROP_FILE, PROMOTE, SET, UNSET};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::ops::Operator;
use crate::ops::edits::change::{Change, shortened};
use crate::ops::edits::check;
use crate::ops::edits::document::Document;
use crate::ops::edits::files::{self, Glob};
use crate::ops::edits::target::{Path, Step, Target};
use crate::quant::DeclarationCheck;
use crate::source::{AuxEntry, Blob, Location};
use crate::spelling::{did_you_mean, nearest};
use crate::text::listing;

/// The longest file that is edited: a tokenizer.json has some 30 MB.
const MOST_BYTES: u64 = 128 << 20;

/// Edits, in order.
#[derive(Debug)]
pub(super) struct Edits {
    pub(super) changes: Vec<Change>,
}

impl Operator for Edits {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        let before = DeclarationCheck::new(catalog);
        for change in &self.changes {
            make(change, catalog)?;
        }
        if before != DeclarationCheck::new(catalog) {
            catalog.report.add(check::Declared);
        }
        Ok(())
    }

    fn finish(&self, catalog: &mut Catalog) -> Result<()> {
        check::overwritten(&self.changes, catalog)?;
        check::dtypes(&self.changes, catalog);
        check::declaration(catalog)
    }
}

/// Makes one edit.
fn make(change: &Change, catalog: &mut Catalog) -> Result<()> {
    match change {
        Change::Set { target, value } => set(catalog, target, value),
        Change::Unset(target) => {
            let mut file = EditedFile::open(catalog, UNSET, target)?;
            let old = file.document.unset(&target.path);
            let old = old.map_err(|problem| file.no_key(&target.path, problem))?;
            file.write(
                catalog,
                FileChange::Unset {
                    path: target.path.to_string(),
                    old: shortened(&old),
                },
            )
        }
        Change::Promote { target, keep } => {
            let mut file = EditedFile::open(catalog, PROMOTE, target)?;
            let promoted = file.document.promote(&target.path, keep);
            promoted.map_err(|problem| file.no_key(&target.path, problem))?;
            file.write(
                catalog,
                FileChange::Promoted {
                    path: target.path.to_string(),
                    kept: keep.clone(),
                },
            )
        }
        Change::Add { name, from } => add(catalog, name, from),
        Change::Drop { glob, text } => {
            drop(catalog, glob, text);
            Ok(())
        }
    }
}

/// A JSON file that is being edited.
struct EditedFile<'a> {
    setting: &'static str,
    target: &'a Target,
    source: Arc<dyn Blob>,
    document: Document,
}

impl<'a> EditedFile<'a> {
    /// The file of `target`, for an edit by `setting`.
    ///
    /// # Errors
    /// If it is not there, or not JSON.
    fn open(catalog: &Catalog, setting: &'static str, target: &'a Target) -> Result<Self> {
        let name = &target.file;
        let (source, text) = match files::find(&catalog.aux, name) {
            Some(AuxEntry::File { file, .. }) => (file, None),
            Some(AuxEntry::Edited { file, text, .. }) => (file, Some(text)),
            Some(AuxEntry::Directory { .. }) => {
                let problem = format!("{name} is a directory, and a JSON file is edited");
                let error = Error::new(Code::WrongFileKind, problem);
                return Err(error.about_value(setting, target.to_string()));
            }
            None => return Err(no_file(catalog, setting, target)),
        };
        let edited = match &catalog.config {
            Some(config) if name == CONFIG_FILE => config.edited_text(),
            _ => None,
        };
        let document = match (edited, text) {
            (Some(text), _) => Document::parse(text.as_bytes()),
            (None, Some(text)) => Document::parse(text),
            (None, None) => Document::parse(&source.read_all(MOST_BYTES)?),
        };
        let document = document.map_err(|problem| {
            let error = Error::of_file(Code::BadConfig, source.location(), problem);
            error.about_value(setting, target.to_string())
        })?;
        Ok(EditedFile {
            setting,
            target,
            source: source.clone(),
            document,
        })
    }

    /// The error about what is not in the file.
    fn no_key(&self, path: &Path, problem: String) -> Error {
        let error = Error::of_file(Code::MissingKey, self.source.location(), problem)
            .about_value(self.setting, self.target.to_string());
        match self.elsewhere(path) {
            Some(elsewhere) => error.with_hint(format!("{elsewhere} is there")),
            None => error,
        }
    }

    /// The path of a key of an object that is at the top, if it is called like the one key of
    /// `path`.
    fn elsewhere(&self, path: &Path) -> Option<Path> {
        let [Step::Key(key)] = &path.0[..] else {
            return None;
        };
        let outer = self.document.keys(&[]).into_iter().map(Step::Key);
        let mut paths = outer.map(|outer| vec![outer, Step::Key(key.clone())]);
        let found = paths.find(|path| self.document.get(path).is_some());
        found.map(Path)
    }

    /// Puts the edited file in the place of the one that was, and tells of it.
    fn write(self, catalog: &mut Catalog, change: FileChange) -> Result<()> {
        let text = self.document.into_text().into_bytes();
        put(catalog, &self.target.file, self.source, Some(text))
            .map_err(|problem| Error::new(Code::Internal, problem))?;
        catalog.report.edits.push(FileEdit {
            file: self.target.file.clone(),
            change,
        });
        Ok(())
    }
}

/// Puts a file at `path`. Returns whether there was one.
///
/// # Errors
/// If a directory is there, or a file where a directory should be.
fn put(
    catalog: &mut Catalog,
    path: &str,
    file: Arc<dyn Blob>,
    text: Option<Vec<u8>>,
) -> std::result::Result<bool, String> {
    let attributes = catalog.attributes;
    let entry = |name: &std::ffi::OsStr| files::entry(name, file, text);
    let replaced = files::put(&mut catalog.aux, path, attributes, entry)?;
    if path == CONFIG_FILE {
        read_again(catalog);
    }
    Ok(replaced)
}

/// Forgets what was read of config.json, but for which keys were edited in it before.
fn read_again(catalog: &mut Catalog) {
    let Some(old) = catalog.config.take() else {
        return;
    };
    if !old.edits().is_empty()
        && let Ok(Some(config)) = Config::find(&catalog.aux)
    {
        catalog.config = Some(config.after(old.edits().clone()));
    }
}

fn no_file(catalog: &Catalog, setting: &'static str, target: &Target) -> Error {
    let name = &target.file;
    let error = |problem: String| {
        let error = Error::new(Code::MissingFile, problem);
        error.about_value(setting, target.to_string())
    };
    if files::is_of_weights(name) {
        return error(format!(
            "{name} is a shard or an index, which the view makes; only files beside the weights can be edited"
        ));
    }
    let paths = files::paths(&catalog.aux);
    let json: Vec<&str> = paths.iter().map(String::as_str).collect();
    let json: Vec<&str> = json
        .into_iter()
        .filter(|path| path.ends_with(".json"))
        .collect();
    let near = did_you_mean(name, json.iter().copied());
    let error = error(format!("the view has no file {name}{near}"));
    match (&near[..], &json[..]) {
        ("", []) => error.with_hint(Hint::give(ADD_FILE).to("add one")),
        ("", json) => error.with_hint(format!("its JSON files are {}", listing(json))),
        _ => error,
    }
}

fn set(catalog: &mut Catalog, target: &Target, value: &str) -> Result<()> {
    let mut file = EditedFile::open(catalog, SET, target)?;
    if target.file == CONFIG_FILE {
        let now = file.document.get(&target.path.0);
        check::merged(catalog, target, value, now)?;
    }
    let parent = &target.path.0[..target.path.0.len() - 1];
    let keys = file.document.keys(parent);
    let elsewhere = file.elsewhere(&target.path);
    let old = file.document.set(&target.path, value);
    let old = old.map_err(|problem| file.no_key(&target.path, problem))?;
    let about = |warning: Warning| warning.about_value(SET, format!("{target}={value}"));
    let mut warnings = Vec::new();
    match (&old, target.path.0.last()) {
        (Some(old), _) if old == value => {
            let problem = "it has no effect: this is its value already";
            warnings.push(about(Warning::new(Code::NoEffect, problem)));
        }
        (None, Some(Step::Key(key))) => {
            let near = nearest(key, keys.iter().map(String::as_str));
            let meant = match (elsewhere, near) {
                (Some(path), _) => Some(path.to_string()),
                (None, near) => near.map(str::to_owned),
            };
            if let Some(meant) = meant {
                let problem = format!("this key is new in {}", target.file);
                let warning = Warning::new(Code::MissingKey, problem);
                let meant = format!("did you mean {meant}, which is there?");
                warnings.push(about(warning.with_hint(meant)));
            }
        }
        _ => {}
    }
    catalog.report.warnings.extend(warnings);
    file.write(
        catalog,
        FileChange::Set {
            path: target.path.to_string(),
            old: old.as_deref().map(shortened),
            new: shortened(value),
        },
    )
}

fn add(catalog: &mut Catalog, name: &str, from: &Location) -> Result<()> {
    let about = |error: Error| error.about_value(ADD_FILE, name);
    let file = from.file().map_err(about)?;
    let replaced = put(catalog, name, file, None);
    let replaced = replaced.map_err(|e| about(Error::new(Code::WrongFileKind, e)))?;
    let from = from.as_path().to_owned();
    let change = match replaced {
        true => FileChange::Replaced { from },
        false => FileChange::Added { from },
    };
    catalog.report.edits.push(FileEdit {
        file: name.to_owned(),
        change,
    });
    Ok(())
}

fn drop(catalog: &mut Catalog, glob: &Glob, text: &str) {
    let all = files::paths(&catalog.aux);
    let dropped = files::take(&mut catalog.aux, glob);
    if dropped.is_empty() {
        let of_weights = files::of_weights(catalog);
        let of_weights = of_weights.into_iter().find(|name| glob.matches(name));
        let warning = match of_weights {
            Some(name) => Warning::new(
                Code::NoMatch,
                format!(
                    "it matches {name}, and no file beside the weights; shards are not left out so"
                ),
            ),
            None => {
                let near = did_you_mean(text, all.iter().map(String::as_str));
                Warning::new(
                    Code::NoMatch,
                    format!("it matches no file of the view{near}"),
                )
            }
        };
        let warning = warning.about_value(DROP_FILE, text);
        catalog.report.warnings.push(warning);
    }
    if dropped.iter().any(|path| path == CONFIG_FILE) {
        catalog.config = None;
    }
    let edits = dropped.into_iter().map(|file| FileEdit {
        file,
        change: FileChange::Dropped,
    });
    catalog.report.edits.extend(edits);
}

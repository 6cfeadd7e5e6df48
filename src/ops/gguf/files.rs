//! The files that metadata is made of.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value};

use crate::catalog::{CONFIG_FILE, Catalog, Config};
use crate::error::{Code, Error, Result};
use crate::source::{AuxEntry, not_json};

/// The longest file that is read.
const MAX_BYTES: u64 = 256 << 20;

/// The files of a view.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    aux: &'a [AuxEntry],
    directory: &'a Path,
}

impl<'a> Files<'a> {
    pub(super) fn of(catalog: &'a Catalog) -> Self {
        Files {
            aux: &catalog.aux,
            directory: &catalog.report.sources[0].path,
        }
    }

    /// The source that they are of.
    pub(super) fn directory(self) -> &'a Path {
        self.directory
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.aux.iter().any(|entry| is_file(entry, name))
    }

    /// The bytes of the file called `name`, if there is one.
    ///
    /// # Errors
    /// If it is too long, or cannot be read.
    pub(super) fn bytes(self, name: &str) -> Result<Option<Vec<u8>>> {
        bytes(self.aux, name)
    }

    /// The JSON object in the file called `name`, if there is such a file.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes), or if it is none.
    pub(super) fn object(self, name: &str) -> Result<Option<Map<String, Value>>> {
        let Some(text) = self.bytes(name)? else {
            return Ok(None);
        };
        let object = serde_json::from_slice(&text).map_err(|error| {
            let problem = format!("not a JSON object: {}", not_json(&text, &error));
            Error::of_file(Code::BadTokenizer, self.directory.join(name), problem)
        })?;
        Ok(Some(object))
    }

    /// The text of the file called `name`, if there is one.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes), or if it is not UTF-8.
    pub(super) fn text(self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(name)? else {
            return Ok(None);
        };
        self.utf8(name, bytes).map(Some)
    }

    /// The texts of the files in the directory `name` whose names end in `.extension`, each with the rest of its
    /// name, in name order.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub(super) fn texts_in(self, name: &str, extension: &str) -> Result<Vec<(String, String)>> {
        let mut texts = Vec::new();
        for entry in self.aux {
            let AuxEntry::Directory {
                name: directory,
                entries,
                ..
            } = entry
            else {
                continue;
            };
            if directory != name {
                continue;
            }
            for file in entries.iter().map(AuxEntry::name) {
                let path = Path::new(file);
                if path.extension() != Some(OsStr::new(extension)) {
                    continue;
                }
                let (Some(stem), Some(file)) = (path.file_stem(), file.to_str()) else {
                    continue;
                };
                if let Some(bytes) = bytes(entries, file)? {
                    let text = self.utf8(&format!("{name}/{file}"), bytes)?;
                    texts.push((stem.to_string_lossy().into_owned(), text));
                }
            }
        }
        Ok(texts)
    }

    fn utf8(self, name: &str, bytes: Vec<u8>) -> Result<String> {
        String::from_utf8(bytes).map_err(|_| {
            let path = self.directory.join(name);
            Error::of_file(Code::BadTokenizer, path, "it is not UTF-8")
        })
    }
}

fn is_file(entry: &AuxEntry, name: &str) -> bool {
    entry.name() == name && !matches!(entry, AuxEntry::Directory { .. })
}

fn bytes(entries: &[AuxEntry], name: &str) -> Result<Option<Vec<u8>>> {
    match entries.iter().find(|entry| is_file(entry, name)) {
        Some(AuxEntry::File { file, .. }) => file.read_all(MAX_BYTES).map(Some),
        Some(AuxEntry::Edited { text, .. }) => Ok(Some(text.to_vec())),
        Some(AuxEntry::Directory { .. }) | None => Ok(None),
    }
}

/// All of config.json, as the view has it.
///
/// # Errors
/// If there is none, or a value cannot be read.
pub(super) fn config(catalog: &mut Catalog) -> Result<Map<String, Value>> {
    let path = catalog.report.sources[0].path.join(CONFIG_FILE);
    let Some(config) = catalog.config_mut()? else {
        let problem = "GGUF needs it, and the view has none";
        return Err(Error::of_file(Code::BadConfig, path, problem));
    };
    values(config)
}

fn values(config: &Config) -> Result<Map<String, Value>> {
    let values = config.keys().map(|key| match config.get(key) {
        Some(value) => Ok((key.to_owned(), value)),
        None => {
            let problem = format!("{key} cannot be read");
            Err(Error::of_file(Code::BadConfig, config.path(), problem))
        }
    });
    values.collect()
}

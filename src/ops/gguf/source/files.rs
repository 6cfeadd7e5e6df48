//! The files other than weights: made of the metadata, or those of another directory.

use std::ffi::OsString;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::catalog::{CONFIG_FILE, Opened};
use crate::error::setting::LIKE;
use crate::error::{Code, Error, Result};
use crate::format::Checkpoint;
use crate::format::gguf::Model;
use crate::ops::gguf::source::config::{config, generation_config};
use crate::ops::gguf::source::metadata::Metadata;
use crate::ops::gguf::source::tokenizer;
use crate::source::{AuxEntry, Derived, Location};

/// Gives `opened` the files of the directory `like` in place of its own: all but weights.
///
/// # Errors
/// If it cannot be read, or has no config.json.
pub(in crate::ops) fn take_files(opened: &mut Opened, like: &Location) -> Result<()> {
    let aux = Checkpoint::files_beside(like)?;
    let mut entries = aux.entries.iter();
    if !entries.any(|entry| entry.name() == CONFIG_FILE) {
        let problem = format!("there is no {CONFIG_FILE} in it");
        let error = Error::of_file(Code::BadConfig, like.as_path(), problem);
        return Err(error.about(LIKE));
    }
    opened.aux = aux.entries;
    let left_out = aux.left_out.into_iter().map(Into::into);
    opened.left_out.extend(left_out);
    Ok(())
}

/// Gives `opened` the files that `model` describes, in place of those of the same names that it has.
///
/// # Errors
/// If what it describes is not known well enough.
pub(in crate::ops) fn make_files(opened: &mut Opened, model: &Model) -> Result<()> {
    let metadata = Metadata::new(model)?;
    let (tokenizer, tokenizer_config) = tokenizer::files(metadata)?;
    let made = [
        (CONFIG_FILE, pretty(config(metadata, opened)?)),
        (
            "generation_config.json",
            pretty(generation_config(metadata)?),
        ),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", pretty(tokenizer_config)),
    ];
    for (name, text) in made {
        let file = Arc::new(Derived::new(model.file.clone(), name, text));
        let entry = AuxEntry::File {
            name: OsString::from(name),
            file,
        };
        let found = opened.aux.iter_mut().find(|entry| entry.name() == name);
        match found {
            Some(found) => {
                *found = entry;
                let what = format!("{name}: made of the metadata of the GGUF file instead");
                opened.left_out.push(what.into());
            }
            None => opened.aux.push(entry),
        }
    }
    opened.aux.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(())
}

fn pretty(object: Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(object)).into_bytes()
}

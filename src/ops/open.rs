//! Opening sources as views take them, whatever container they are in.

use crate::catalog::{Catalog, Opened};
use crate::error::setting::LIKE;
use crate::error::{Code, Error, Hint, Result};
use crate::format::Checkpoint;
use crate::ops::convert::Converted;
use crate::ops::gguf::source;
use crate::ops::numbers::Numbers;
use crate::source::Location;

/// The tensors of `location`, a directory or a file. Nothing else of it is for use: what a container has in
/// place of config.json and the like is not looked at.
///
/// # Errors
/// If it cannot be read, or its tensors cannot be given.
pub(crate) fn tensors(location: &Location, numbers: &Numbers) -> Result<Opened> {
    opened(Checkpoint::open_or_file(location)?, numbers)
}

/// The model at `location`, a directory or a GGUF file, whole: with config.json and tokenizer, which are those of
/// the directory `like`, if there is one, or else its own.
///
/// # Errors
/// If it cannot be read, its tensors cannot be given, or it lacks something that a view needs.
pub fn catalog(location: &Location, numbers: &Numbers, like: Option<&Location>) -> Result<Catalog> {
    let checkpoint = Checkpoint::open(location)?;
    let gguf = checkpoint.gguf.clone();
    let mut opened = opened(checkpoint, numbers)?;
    match (gguf, like) {
        (Some(_), Some(like)) => source::take_files(&mut opened, like)?,
        (Some(gguf), None) => source::make_files(&mut opened, &gguf)?,
        (None, Some(_)) => {
            let problem = "only a GGUF model can have config and tokenizer of another directory";
            let error = Error::of_file(Code::Conflict, location.as_path(), problem).about(LIKE);
            return Err(error.with_hint(Hint::leave_out(LIKE)));
        }
        (None, None) => {}
    }
    let computed = opened.tensors.values().filter(|tensor| !tensor.is_stored());
    let converted = Converted {
        cast: 0,
        dequantized: computed.count(),
    };
    let mut catalog = Catalog::from_base(opened);
    catalog.report.add(converted);
    Ok(catalog)
}

fn opened(checkpoint: Checkpoint, numbers: &Numbers) -> Result<Opened> {
    match checkpoint.gguf.clone() {
        Some(gguf) => source::opened(checkpoint, &gguf, numbers),
        None => Ok(Opened::stored(checkpoint)),
    }
}

//! Opening sources as views take them, whatever container they are in.

use crate::catalog::{Catalog, Opened};
use crate::error::setting::LIKE;
use crate::error::{Code, Error, Hint, Result};
use crate::format::Checkpoint;
use crate::ops::convert::Converted;
use crate::ops::gguf::source;
use crate::ops::numbers::Numbers;
use crate::ops::training;
use crate::source::Location;

/// The tensors of `location`, a directory or a file. Nothing else of it is for use: what a container has in
/// place of config.json and the like is not looked at.
///
/// # Errors
/// If it cannot be read, or its tensors cannot be given.
pub(crate) fn tensors(location: &Location, numbers: &Numbers) -> Result<Opened> {
    opened(Checkpoint::open_or_file(location)?, numbers, None, false)
}

/// The model at `location`, a directory or a GGUF file, whole: with config.json and tokenizer, which are those of
/// the directory `like`, if there is one, or else its own. What a training checkpoint lacks may be `added` later.
///
/// # Errors
/// If it cannot be read, its tensors cannot be given, or it lacks something that a view needs.
pub fn catalog(
    location: &Location,
    numbers: &Numbers,
    like: Option<&Location>,
    added: bool,
) -> Result<Catalog> {
    let checkpoint = Checkpoint::open(location)?;
    let gguf = checkpoint.gguf.clone();
    let takes_files = gguf.is_some() || checkpoint.training.is_some();
    if like.is_some() && !takes_files {
        let problem = "only a GGUF model or a training checkpoint can have config and tokenizer of another directory";
        let error = Error::of_file(Code::Conflict, location.as_path(), problem).about(LIKE);
        return Err(error.with_hint(Hint::leave_out(LIKE)));
    }
    let mut opened = opened(checkpoint, numbers, like, added)?;
    let mut dequantized = 0;
    if let Some(gguf) = gguf {
        match like {
            Some(like) => source::take_files(&mut opened, like)?,
            None => source::make_files(&mut opened, &gguf)?,
        }
        let tensors = opened.tensors.values();
        dequantized = tensors.filter(|tensor| !tensor.is_stored()).count();
    }
    let mut catalog = Catalog::from_base(opened);
    catalog.report.add(Converted {
        cast: 0,
        dequantized,
    });
    Ok(catalog)
}

fn opened(
    mut checkpoint: Checkpoint,
    numbers: &Numbers,
    like: Option<&Location>,
    added: bool,
) -> Result<Opened> {
    if let Some(training) = checkpoint.training.take() {
        return training::opened(checkpoint, training, like, added);
    }
    match checkpoint.gguf.clone() {
        Some(gguf) => source::opened(checkpoint, &gguf, numbers),
        None => Ok(Opened::stored(checkpoint)),
    }
}

//! Writing a view to disk: the bytes that a mount shows, as ordinary files.
//!
//! Everything is first written to a partial directory on the filesystem of the destination,
//! forced to the disk and then renamed, so that the destination is either as it was or complete.
//! A run that was stopped leaves its partial directory, and the next one goes on with it.

mod copy;
mod destination;
mod directory;
mod lock;
mod output;
mod partial;
mod parts;
mod pieces;
mod request;
mod space;
mod state;
mod sums;
mod weights_only;
mod write;

use std::path::{Path, PathBuf};
use std::thread;

use crate::error::{Error, Result};
use crate::jobs::Progress;
use crate::materialize::destination::Destination;
use crate::materialize::output::sync_directory;
use crate::materialize::partial::Partial;
use crate::materialize::write::NewFile;
use crate::recipe::Plan;
use crate::shown::Show;

pub use crate::materialize::parts::Part;
pub use crate::materialize::space::{Outlook, outlook};

/// How to write a view.
#[derive(Debug, Clone)]
pub struct Options {
    /// Link shards that are whole source files instead of copying them. A link shares its bytes
    /// and its mode with the source.
    pub hardlink: bool,
    /// Replace what the destination holds.
    pub overwrite: bool,
    /// Put only shards and index into an existing directory.
    pub weights_only: bool,
    /// Refuse to begin where the files take more than there is free space.
    pub check_space: bool,
    /// Write the checksums of all files beside them. Not of weights alone.
    pub sha256: bool,
    /// How much of the view to write. Weights alone are written as a whole.
    pub share: Share,
    /// Threads that write.
    pub jobs: usize,
    /// Where facts about whole tensors are kept from one run to the next.
    pub facts_cache: Option<PathBuf>,
    /// Read past the page cache what is not in it.
    pub direct_sources: bool,
}

impl Default for Options {
    /// Copies into a new directory with a thread for each CPU.
    fn default() -> Self {
        Options {
            hardlink: false,
            overwrite: false,
            weights_only: false,
            check_space: true,
            sha256: false,
            share: Share::Whole,
            jobs: thread::available_parallelism().map_or(1, usize::from),
            facts_cache: None,
            direct_sources: false,
        }
    }
}

/// How much of a view one run writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All of it.
    #[default]
    Whole,
    /// Some of the shards. They wait in the partial directory for the others.
    Part(Part),
    /// All that is no shard, once all parts are complete; the view then takes its place.
    Finish,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Files in the destination that are from the view, and their bytes.
    pub files: usize,
    pub bytes: u64,
    /// Those of the files that are links to a source, and their bytes.
    pub linked: usize,
    pub linked_bytes: u64,
    /// Those of the files that earlier runs, or parts, have written, and their bytes.
    pub kept: usize,
    pub kept_bytes: u64,
    /// Files that were to be linked but had to be copied.
    pub copied_instead: usize,
    /// What is probably not what was meant.
    pub warnings: Vec<String>,
}

/// Writes the view of `plan` into the directory `out`. `inputs` are the files and directories that
/// the view was planned from, references included.
///
/// # Errors
/// If `out` is, holds or is inside an input, holds something that was not to be overwritten, or
/// cannot be written; if a source changed or cannot be read; if a tensor cannot be quantized.
/// `out` is then as it was before. Parents of `out` that were made stay, and so does the partial
/// directory if a file in it is complete: the same request goes on with it, once sources and
/// destination allow it.
pub fn materialize(
    plan: &Plan,
    inputs: &[PathBuf],
    out: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    let destination = Destination::resolve(out, plan, inputs, options)?;
    let (written, partial) = match options.weights_only {
        true => (
            weights_only::place(plan, &destination, options, progress),
            destination.partial_inside(),
        ),
        false => (
            directory::write(plan, &destination, options, progress),
            destination.partial_beside(),
        ),
    };
    written.map_err(|error| destination.as_asked_for(error, &partial))
}

/// The partial directory that a run on `out` has left, if there is one.
pub fn left_by_earlier_run(out: &Path, weights_only: bool) -> Option<PathBuf> {
    let path = destination::partial_of(out, weights_only)?;
    path.exists().then_some(path)
}

fn interrupted() -> Error {
    Error::Request("interrupted; the destination is as it was".to_owned())
}

/// Forces to the disk that the new files in `directory` have their names, before what they
/// replace is deleted. They have them by now, so a failure is only told.
fn settle(directory: &Path, summary: &mut Summary) {
    if let Err(e) = sync_directory(directory) {
        summary.warnings.push(e.to_string());
    }
}

/// Deletes the partial directory with the replaced files in it. The new ones are in place by now,
/// so a failure is only told.
fn discard(partial: Partial, summary: &mut Summary) {
    let path = partial.path().to_owned();
    if let Err(e) = partial.remove() {
        summary.warnings.push(format!(
            "{}: the previous content could not be deleted: {e}; delete it by hand",
            path.shown()
        ));
    }
}

/// Whether `error` says that the disk, or what this user may take of it, is full.
fn is_out_of_space(error: &Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        Error::Io { cause, .. } => matches!(cause.kind(), StorageFull | QuotaExceeded),
        _ => false,
    }
}

/// Says what a full disk means for the whole job.
fn out_of_space(
    error: Error,
    destination: &Destination,
    partial: &Partial,
    files: &[NewFile],
) -> Error {
    use std::io::ErrorKind::QuotaExceeded;
    match &error {
        Error::Io { cause, .. } if is_out_of_space(&error) => {
            let missing = files
                .iter()
                .filter(|file| partial.record(file.entry).is_none());
            let needed: u64 = missing.map(|file| file.content.len()).sum();
            let what = match cause.kind() {
                QuotaExceeded => "the quota of this user is used up",
                _ => "no space is left",
            };
            Error::Request(format!(
                "{}: {what}; the files that are not complete take {needed} bytes: make room and run the same command again",
                destination.shown().shown()
            ))
        }
        _ => error,
    }
}

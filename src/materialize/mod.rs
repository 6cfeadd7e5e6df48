//! Writing a view to disk: the bytes that a mount shows, as ordinary files.
//!
//! Everything is first written to a temporary directory on the filesystem of the destination,
//! forced to the disk and then renamed, so that the destination is either as it was or complete.

mod copy;
mod destination;
mod output;
mod pieces;
mod weights_only;
mod write;

use std::path::{Path, PathBuf};
use std::thread;

use crate::error::{Error, Result};
use crate::jobs::Progress;
use crate::materialize::destination::Destination;
use crate::materialize::output::sync_directory;
use crate::materialize::write::{NewFile, Writer};
use crate::recipe::Plan;

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
    /// Threads that write.
    pub jobs: usize,
}

impl Default for Options {
    /// Copies into a new directory with a thread for each CPU.
    fn default() -> Self {
        Options {
            hardlink: false,
            overwrite: false,
            weights_only: false,
            jobs: thread::available_parallelism().map_or(1, usize::from),
        }
    }
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
    /// Files that were to be linked but had to be copied.
    pub copied_instead: usize,
    /// What is probably not what was meant.
    pub warnings: Vec<String>,
}

/// Writes the view of `plan` into the directory `out`. `sources` are the directories that the
/// view was planned from, references included.
///
/// # Errors
/// If `out` is, holds or lies in a source, holds something that was not to be overwritten, or
/// cannot be written; if a source changed or cannot be read; if a tensor cannot be quantized.
/// `out` is then as it was before. Parents of `out` that were made stay.
pub fn materialize(
    plan: &Plan,
    sources: &[PathBuf],
    out: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    let destination = Destination::resolve(out, plan, sources)?;
    match options.weights_only {
        true => weights_only::place(plan, &destination, options, progress),
        false => write_directory(plan, &destination, options, progress),
    }
}

fn write_directory(
    plan: &Plan,
    destination: &Destination,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    destination.check_replaceable(options.overwrite)?;
    let staging = destination.stage_beside()?;
    let staged = staging.path().join("view");
    let files = NewFile::all(plan);
    let mut summary = Writer::new(plan, &staged, options, progress)
        .write(&files)
        .map_err(|e| out_of_space(e, destination, &files))?;
    destination.replace_with(&staged, &staging.path().join("previous"), options.overwrite)?;
    settle(destination.parent(), &mut summary);
    discard(staging, &mut summary);
    Ok(summary)
}

/// Forces to the disk that the new files in `directory` have their names, before what they
/// replace is deleted. They have them by now, so a failure is only told.
fn settle(directory: &Path, summary: &mut Summary) {
    if let Err(e) = sync_directory(directory) {
        summary.warnings.push(e.to_string());
    }
}

/// Deletes what is left in a temporary directory: the replaced files. The new ones are in place
/// by now, so a failure is only told.
fn discard(staging: tempfile::TempDir, summary: &mut Summary) {
    let path = staging.path().to_owned();
    if let Err(e) = staging.close() {
        summary.warnings.push(format!(
            "{}: the previous content could not be deleted: {e}; delete it by hand",
            path.display()
        ));
    }
}

/// Says what a full disk means for the whole job.
fn out_of_space(error: Error, destination: &Destination, files: &[NewFile]) -> Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match &error {
        Error::Io { cause, .. } if matches!(cause.kind(), StorageFull | QuotaExceeded) => {
            let needed: u64 = files.iter().map(|file| file.content.len()).sum();
            Error::Request(format!(
                "{}: no space left ({cause}): the files take {needed} bytes; nothing was left behind",
                destination.shown().display()
            ))
        }
        _ => error,
    }
}

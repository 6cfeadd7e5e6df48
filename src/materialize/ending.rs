//! What is done at the end of a run, once all is in place or the disk is full.

use std::path::Path;

use crate::error::{Code, Error, Warning};
use crate::materialize::destination::Destination;
use crate::materialize::new_file::NewFile;
use crate::materialize::options::Summary;
use crate::materialize::output::sync_directory;
use crate::materialize::partial::Partial;

/// Forces to the disk that the new files in `directory` have their names, before what they
/// replace is deleted. They have them by now, so a failure is only told.
pub(super) fn settle(directory: &Path, summary: &mut Summary) {
    if let Err(e) = sync_directory(directory) {
        summary.warnings.push(e.into());
    }
}

/// Deletes the partial directory with the replaced files in it. The new ones are in place by now,
/// so a failure is only told.
pub(super) fn discard(partial: Partial, summary: &mut Summary) {
    let path = partial.path().to_owned();
    if let Err(e) = partial.remove() {
        let problem = format!("the previous content could not be deleted: {e}");
        let warning = Warning::new(Code::LeftBehind, problem).in_file(path);
        summary
            .warnings
            .push(warning.with_hint("delete it by hand"));
    }
}

/// Says what a full disk means for the whole job.
pub(super) fn out_of_space(
    error: Error,
    destination: &Destination,
    partial: &Partial,
    files: &[NewFile],
) -> Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let what = match error.io_kind() {
        Some(QuotaExceeded) => "the quota of this user is used up",
        Some(StorageFull) => "no space is left",
        _ => return error,
    };
    let missing = files
        .iter()
        .filter(|file| partial.record(file.entry).is_none());
    let needed: u64 = missing.map(|file| file.content.len()).sum();
    let problem = format!("{what}; the files that are not complete take {needed} bytes");
    let error = Error::of_file(Code::NoSpace, destination.shown(), problem);
    error.with_hint("make room and run the same command again")
}

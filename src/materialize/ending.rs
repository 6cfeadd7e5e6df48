//! What is done at the end of a run, once all is in place or the disk is full.

use std::path::Path;

use crate::error::Error;
use crate::materialize::destination::Destination;
use crate::materialize::failures::is_out_of_space;
use crate::materialize::new_file::NewFile;
use crate::materialize::options::Summary;
use crate::materialize::output::sync_directory;
use crate::materialize::partial::Partial;
use crate::shown::Show;

/// Forces to the disk that the new files in `directory` have their names, before what they
/// replace is deleted. They have them by now, so a failure is only told.
pub(super) fn settle(directory: &Path, summary: &mut Summary) {
    if let Err(e) = sync_directory(directory) {
        summary.warnings.push(e.to_string());
    }
}

/// Deletes the partial directory with the replaced files in it. The new ones are in place by now,
/// so a failure is only told.
pub(super) fn discard(partial: Partial, summary: &mut Summary) {
    let path = partial.path().to_owned();
    if let Err(e) = partial.remove() {
        summary.warnings.push(format!(
            "{}: the previous content could not be deleted: {e}; delete it by hand",
            path.shown()
        ));
    }
}

/// Says what a full disk means for the whole job.
pub(super) fn out_of_space(
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

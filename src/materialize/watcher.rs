//! Somebody who uses the files of a run before all of them are there.

use std::path::Path;

use crate::error::Result;
use crate::view::EntryId;

/// Told of a run's files while it writes them, by any of its threads.
pub trait Watcher: Sync {
    /// File `entry` is complete and on the disk, at `path`.
    fn complete(&self, entry: EntryId, path: &Path) {
        let _ = (entry, path);
    }

    /// The files that somebody waits for, the most urgent first: they are written before the others.
    fn wanted(&self) -> Vec<EntryId> {
        Vec::new()
    }

    /// All files are complete, and `place` moves them into the directory `destination`.
    ///
    /// # Errors
    /// That of `place`.
    fn placed(&self, destination: &Path, place: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let _ = destination;
        place()
    }
}

/// Wants to know nothing.
impl Watcher for () {}

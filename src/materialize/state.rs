//! Small files that are there as a whole or not at all, also after a power failure.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::materialize::output::sync_directory;
use crate::source::with_room;

/// Writes the file `name` in `directory`, all of it or nothing.
///
/// # Errors
/// Also if it exists.
pub(super) fn write_new(directory: &Path, name: &str, text: &[u8]) -> Result<()> {
    let write_error = |e: io::Error| Error::io("write", directory.join(name), e);
    let file = written_beside(directory, text).map_err(write_error)?;
    let persisted = file.persist_noclobber(directory.join(name));
    persisted.map_err(|e| write_error(e.error))?;
    sync_directory(directory)
}

/// As [`write_new`], in place of a file that may exist.
pub(super) fn replace(directory: &Path, name: impl AsRef<Path>, text: &[u8]) -> Result<()> {
    let path = directory.join(name);
    let write_error = |e: io::Error| Error::io("write", &path, e);
    let file = written_beside(directory, text).map_err(write_error)?;
    let persisted = file.persist(&path);
    persisted.map_err(|e| write_error(e.error))?;
    sync_directory(directory)
}

fn written_beside(directory: &Path, text: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = with_room(|| NamedTempFile::new_in(directory))?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Deletes the file or directory at `path`, if there is one.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("delete", path, e)),
        _ => Ok(()),
    }
}

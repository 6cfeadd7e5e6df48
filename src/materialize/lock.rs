//! Locks that keep processes from writing in one partial directory at once.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::jobs::Progress;
use crate::materialize::options::Share;
use crate::shown::Show;
use crate::source::with_room;

/// A file that is locked until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close it is not enough: a process that is just being started, by another thread, has it
        // too for a moment. Where there are no locks, there is nothing to undo.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Makes the directory at `path` if need be, and locks it.
pub(super) fn lock(path: &Path, share: Share, progress: &dyn Progress) -> Result<Vec<Lock>> {
    use FlockOperation::{NonBlockingLockExclusive as Alone, NonBlockingLockShared as Shared};
    let wanted = match share {
        Share::Whole | Share::Finish => vec![("lock".to_owned(), Alone)],
        Share::Part(part) => vec![
            ("lock".to_owned(), Shared),
            (format!("part-{}.lock", part.number()), Alone),
        ],
    };
    'again: loop {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io("create a directory", path, e));
            }
            _ => {}
        }
        let mut locks = Vec::new();
        for (name, operation) in &wanted {
            match lock_file(&path.join(name), *operation, progress) {
                Ok(Some(lock)) => locks.push(lock),
                // Whoever had it has deleted the directory meanwhile.
                Ok(None) => continue 'again,
                Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => continue 'again,
                Err(error) => return Err(error),
            }
        }
        return Ok(locks);
    }
}

/// The locked file at `path`, or `None` if another file, or none, has that name by now.
fn lock_file(
    path: &Path,
    operation: FlockOperation,
    progress: &dyn Progress,
) -> Result<Option<Lock>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let file = with_room(|| options.open(path)).map_err(|e| Error::io("open", path, e))?;
    let lock = Lock(file);
    match flock(&lock.0, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(Error::of_file(
                Code::Locked,
                path,
                "locked: another process is writing here",
            )
            .with_hint("wait until it is done"));
        }
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => progress.note(&format!(
            "{}: this filesystem has no locks: make sure that nobody else writes the same",
            path.shown()
        )),
        Err(e) => return Err(Error::io("lock", path, e.into())),
    }
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let locked = lock
        .0
        .metadata()
        .map_err(|e| Error::io("read the attributes", path, e))?;
    let named = path.metadata().ok().map(identity);
    Ok((named == Some(identity(locked))).then_some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_owner_even_while_another_process_is_started() {
        let directory = tempfile::tempdir().unwrap();
        let again = || lock(directory.path(), Share::Whole, &());
        let held = again().unwrap();
        assert!(again().unwrap_err().to_string().contains("locked"));
        // What a process has between fork and exec.
        let inherited = held[0].0.try_clone().unwrap();
        drop(held);
        again().unwrap();
        drop(inherited);
    }
}

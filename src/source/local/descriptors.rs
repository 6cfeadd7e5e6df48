//! The descriptors of sources: at most a share of what this process may have open.

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::source::pool::Pool;

/// Every open source.
pub(super) static SOURCES: Pool<File> = Pool::new(share);

/// The part of the limit that sources may take. The rest is for files that are written, for
/// connections, and in a program that uses the library, for the program.
const SHARE: u64 = 2;

fn share() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let share = limit.map_or(u64::MAX, |limit| limit / SHARE);
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

/// What `open` returns; where the process, or the system, has no descriptor left for it, idle sources
/// are closed and it is called once more.
///
/// # Errors
/// That of `open`.
pub(crate) fn with_room<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match open() {
        Err(error) if is_shortage(&error) && SOURCES.close_idle() > 0 => open(),
        result => result,
    }
}

/// Whether `error` says that there is no descriptor left.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

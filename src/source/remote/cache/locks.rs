//! Locks between processes that end with the process that holds them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::source::remote::cache::index::ENTRY;

/// A range of a file that no other opening of it has locked.
#[derive(Debug)]
pub(super) struct Lock<'a> {
    file: &'a File,
    start: u64,
    len: u64,
}

impl<'a> Lock<'a> {
    /// That of the entry of `block` in an index; `None` if somebody has it.
    pub(super) fn of_block(index: &'a File, block: u64) -> io::Result<Option<Self>> {
        Self::try_new(index, block * ENTRY, ENTRY)
    }

    /// That of the whole of `file`.
    pub(super) fn of_file(file: &'a File) -> io::Result<Option<Self>> {
        Self::try_new(file, 0, 1)
    }

    fn try_new(file: &'a File, start: u64, len: u64) -> io::Result<Option<Self>> {
        match set(file, libc::F_WRLCK, start, len) {
            Ok(()) => Ok(Some(Lock { file, start, len })),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = set(self.file, libc::F_UNLCK, self.start, self.len);
    }
}

fn set(file: &File, kind: libc::c_int, start: u64, len: u64) -> io::Result<()> {
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start.try_into().map_err(wrong)?,
        l_len: len.try_into().map_err(wrong)?,
        l_pid: 0,
    };
    // SAFETY: the kernel reads the one struct, which lives until it returns.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

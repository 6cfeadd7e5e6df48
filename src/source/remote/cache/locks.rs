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
            Err(error) if is_taken(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A file that is opened to be locked, by several or by one; closing it ends that.
#[derive(Debug)]
pub(super) struct Opening {
    _file: File,
}

impl Opening {
    /// Locks `file`, which nobody else has this opening of, beside others who do the same; `None` if
    /// somebody has it alone.
    pub(super) fn shared(file: File) -> io::Result<Option<Self>> {
        Self::new(file, libc::F_RDLCK)
    }

    /// The same alone; `None` if anybody has it.
    pub(super) fn alone(file: File) -> io::Result<Option<Self>> {
        Self::new(file, libc::F_WRLCK)
    }

    fn new(file: File, kind: libc::c_int) -> io::Result<Option<Self>> {
        match set(&file, kind, 0, 1) {
            Ok(()) => Ok(Some(Opening { _file: file })),
            Err(error) if is_taken(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
    )
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

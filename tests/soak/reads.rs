//! The ways of reading a file, each of which hands on what it read of a range.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use memmap2::MmapOptions;
use rustix::fs::{Advice, MemfdFlags};
use rustix::io::Errno;

/// A way of reading.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    read: fn(&mut Opened, u64, usize, &mut Check<'_>) -> io::Result<()>,
}

/// Is given what was read, in order.
type Check<'a> = dyn FnMut(&[u8]) + 'a;

pub(crate) const WAYS: [Way; 5] = [
    Way {
        name: "pread",
        read: pread,
    },
    Way {
        name: "mmap",
        read: mapping,
    },
    Way {
        name: "sendfile",
        read: sendfile,
    },
    // From the view to another filesystem the kernel refuses it, and `cp` goes on with the next.
    Way {
        name: "copy_file_range, sendfile",
        read: copy_file_range,
    },
    Way {
        name: "pread of O_DIRECT",
        read: direct,
    },
];

/// A file of the mount, and where copies of it go.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    direct: File,
    copy: File,
    buffer: Vec<u8>,
}

impl Opened {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let mut direct = File::options();
        direct.read(true).custom_flags(libc::O_DIRECT);
        Ok(Opened {
            file: File::open(path)?,
            direct: direct.open(path)?,
            copy: rustix::fs::memfd_create("copy", MemfdFlags::CLOEXEC)?.into(),
            buffer: Vec::new(),
        })
    }

    /// Reads `len` bytes from `offset` by the way of number `way`; fewer at the end of the file.
    pub(crate) fn read(
        &mut self,
        way: usize,
        offset: u64,
        len: usize,
        check: &mut Check<'_>,
    ) -> io::Result<()> {
        (WAYS[way].read)(self, offset, len, check)
    }

    /// Has the kernel forget what it keeps of a range, unless others map it.
    pub(crate) fn forget(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = len.try_into().ok();
        Ok(rustix::fs::fadvise(
            &self.file,
            offset,
            len,
            Advice::DontNeed,
        )?)
    }
}

/// Fills `buffer` from `offset` as far as the file goes.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn pread(opened: &mut Opened, offset: u64, len: usize, check: &mut Check<'_>) -> io::Result<()> {
    opened.buffer.clear();
    opened.buffer.resize(len, 0xAA);
    let count = fill(&opened.file, &mut opened.buffer, offset)?;
    check(&opened.buffer[..count]);
    Ok(())
}

fn direct(opened: &mut Opened, offset: u64, len: usize, check: &mut Check<'_>) -> io::Result<()> {
    opened.buffer.clear();
    opened.buffer.resize(len, 0xAA);
    let count = fill(&opened.direct, &mut opened.buffer, offset)?;
    check(&opened.buffer[..count]);
    Ok(())
}

fn mapping(opened: &mut Opened, offset: u64, len: usize, check: &mut Check<'_>) -> io::Result<()> {
    let size = opened.file.metadata()?.len();
    let len = len.min(size.saturating_sub(offset) as usize);
    if len == 0 {
        check(&[]);
        return Ok(());
    }
    // SAFETY: nothing writes to a view.
    let mapping = unsafe {
        MmapOptions::new()
            .offset(offset)
            .len(len)
            .map(&opened.file)?
    };
    check(&mapping);
    Ok(())
}

fn sendfile(opened: &mut Opened, offset: u64, len: usize, check: &mut Check<'_>) -> io::Result<()> {
    let copy = |opened: &Opened, from: &mut u64, count| {
        rustix::fs::sendfile(&opened.copy, &opened.file, Some(from), count)
    };
    through_copy(opened, offset, len, check, copy)
}

fn copy_file_range(
    opened: &mut Opened,
    offset: u64,
    len: usize,
    check: &mut Check<'_>,
) -> io::Result<()> {
    let copy = |opened: &Opened, from: &mut u64, count| {
        let (file, copy) = (&opened.file, &opened.copy);
        match rustix::fs::copy_file_range(file, Some(from), copy, None, count) {
            Err(Errno::XDEV) => rustix::fs::sendfile(copy, file, Some(from), count),
            result => result,
        }
    };
    through_copy(opened, offset, len, check, copy)
}

/// Has `copy` write the range to another file, from where it is read.
fn through_copy(
    opened: &mut Opened,
    offset: u64,
    len: usize,
    check: &mut Check<'_>,
    copy: impl Fn(&Opened, &mut u64, usize) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    rustix::fs::seek(&opened.copy, rustix::fs::SeekFrom::Start(0))?;
    let mut from = offset;
    let end = offset + len as u64;
    while from < end {
        let before = from;
        let count = copy(opened, &mut from, (end - before) as usize)?;
        assert_eq!(from, before + count as u64);
        if count == 0 {
            break;
        }
    }
    let count = (from - offset) as usize;
    opened.buffer.clear();
    opened.buffer.resize(count, 0xAA);
    opened.copy.read_exact_at(&mut opened.buffer, 0)?;
    check(&opened.buffer);
    Ok(())
}

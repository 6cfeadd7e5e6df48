//! Reading a file past the page cache, where its bytes are not in it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

/// What is read past the page cache begins at multiples of this many bytes, in the file and in
/// memory.
pub(crate) const BLOCK: usize = 4096;

/// Opens once more what `file` has open, whatever its name leads to by now, so that reads go past
/// the page cache.
///
/// # Errors
/// If the filesystem has no such reads, or none of [`BLOCK`]s.
pub(super) fn open(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::DIRECT;
    let opened = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let known = rustix::fs::statx(&opened, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    // Before Linux 6.1, only reading shows.
    if let Ok(known) = known
        && StatxFlags::from_bits_retain(known.stx_mask).contains(StatxFlags::DIOALIGN)
    {
        let fits = |align: u32| align != 0 && BLOCK.is_multiple_of(align as usize);
        if !fits(known.stx_dio_mem_align) || !fits(known.stx_dio_offset_align) {
            return Err(Errno::INVAL.into());
        }
    }
    Ok(opened)
}

/// Fills `blocks`, which begin at a multiple of [`BLOCK`] and are some, from `offset`, which is
/// one, of `file`, which was opened for that; returns whether their first `needed` bytes were there.
///
/// # Errors
/// If such reads are refused.
pub(super) fn read(
    file: &File,
    blocks: &mut [u8],
    offset: u64,
    needed: usize,
) -> Result<bool, Errno> {
    let mut done = 0;
    while done < needed {
        let at = offset + done as u64;
        match retry_on_intr(|| rustix::io::pread(file, &mut blocks[done..], at)) {
            Ok(count) if count > 0 => done += count,
            Err(error @ (Errno::INVAL | Errno::OPNOTSUPP)) => return Err(error),
            Ok(_) | Err(_) => return Ok(false),
        }
        if done < needed && !done.is_multiple_of(BLOCK) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the page cache has all of `range` of `file`; `false` if the kernel does not tell: before
/// Linux 6.5, or to who does not own the file and may not write to it.
pub(super) fn is_cached(file: &File, range: &Range<u64>) -> bool {
    /// The same on all architectures.
    const CACHESTAT: libc::c_long = 451;
    #[repr(C)]
    struct CachestatRange {
        off: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Cachestat {
        nr_cache: u64,
        nr_dirty: u64,
        nr_writeback: u64,
        nr_evicted: u64,
        nr_recently_evicted: u64,
    }
    let asked = CachestatRange {
        off: range.start,
        len: range.end - range.start,
    };
    let mut told = Cachestat::default();
    // SAFETY: the kernel reads the one struct and fills the other, which are as linux/mman.h has
    // them, and does nothing else.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &asked, &mut told, 0u32) };
    let page = rustix::param::page_size() as u64;
    let pages = range.end.div_ceil(page) - range.start / page;
    result == 0 && told.nr_cache >= pages
}

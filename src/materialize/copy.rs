//! Copying a range of a source file: filesystems with reflinks share its blocks and copy nothing,
//! network filesystems have their server copy, and others read and write.

use std::fs::File;

use rustix::fs::{copy_file_range, fstatfs};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::fast_paths::FastPath;
use crate::materialize::output::Output;
use crate::read::Stored;
use crate::shown::Show;
use crate::source::{Blob, LocalFile};

/// Bytes that the kernel is asked to copy at once, so that progress is seen.
const KERNEL_CHUNK: u64 = 64 << 20;
/// Bytes that are copied at once through memory. Writes end at multiples of it.
const BUFFER: u64 = 1 << 20;
/// Filesystems share blocks of this many bytes, or of a divisor of it.
const BLOCK: u64 = 4096;

/// How a filesystem copies best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By reading and writing: the kernel would do it too, but 64 KiB at a time.
    Memory,
    /// By sharing blocks where they lie at the same place within a block, else by reading and
    /// writing.
    Blocks,
    /// However the kernel does it.
    Kernel,
}

impl Way {
    fn for_file(file: &File) -> Way {
        const EXT4: u32 = 0xEF53;
        const TMPFS: u32 = 0x0102_1994;
        const XFS: u32 = 0x5846_5342;
        const BTRFS: u32 = 0x9123_683E;
        if !FastPath::KernelCopy.is_enabled() {
            return Way::Memory;
        }
        match fstatfs(file).map(|statistics| statistics.f_type as u32) {
            Ok(EXT4 | TMPFS) => Way::Memory,
            Ok(XFS | BTRFS) => Way::Blocks,
            _ => Way::Kernel,
        }
    }
}

/// Whether space should be reserved in `file` before anything is copied to it. Blocks that will
/// be shared need none.
pub(super) fn wants_space(file: &File) -> bool {
    Way::for_file(file) == Way::Memory
}

/// Whether files that are made where `file` is may share blocks with sources.
pub(super) fn shares_blocks(file: &File) -> bool {
    Way::for_file(file) == Way::Blocks
}

/// Whether the two offsets are at the same place within a block, as shared blocks must be.
pub(super) fn same_place(offset: u64, start: u64) -> bool {
    offset % BLOCK == start % BLOCK
}

/// Copies `len` bytes of `source` from `offset` to byte `start` of `output`.
///
/// # Errors
/// [`Code::SourceChanged`](crate::error::Code::SourceChanged) if the source is no longer what was planned: before, or after the
/// last byte.
pub(super) fn range(
    stored: &Stored,
    source: &dyn Blob,
    offset: u64,
    output: &Output,
    start: u64,
    len: u64,
) -> Result<()> {
    let file = source.as_local();
    // Kept open, so that one file gives all of the bytes.
    let _open = file.map(LocalFile::handle).transpose()?;
    source.check()?;
    match file {
        Some(file) => {
            let way = Way::for_file(output.file());
            by(way, stored, file, offset, output, start, len)?;
        }
        None => through_memory(stored, source, offset, output, start, len)?,
    }
    source.check()
}

fn by(
    way: Way,
    stored: &Stored,
    source: &LocalFile,
    offset: u64,
    output: &Output,
    start: u64,
    len: u64,
) -> Result<()> {
    let by_memory = match way {
        Way::Kernel => 0,
        Way::Blocks if same_place(offset, start) => {
            (start.next_multiple_of(BLOCK) - start).min(len)
        }
        Way::Blocks | Way::Memory => len,
    };
    through_memory(stored, source, offset, output, start, by_memory)?;
    let (offset, start, len) = (offset + by_memory, start + by_memory, len - by_memory);
    let done = in_kernel(source, offset, output, start, len)?;
    through_memory(
        stored,
        source,
        offset + done,
        output,
        start + done,
        len - done,
    )
}

/// Copies what the kernel can copy; returns how many bytes that is.
fn in_kernel(
    source: &LocalFile,
    offset: u64,
    output: &Output,
    start: u64,
    len: u64,
) -> Result<u64> {
    let from = source.handle()?;
    let mut done = 0;
    while done < len {
        output.check_going_on()?;
        let chunk = (len - done).min(KERNEL_CHUNK) as usize;
        let (mut at, mut to) = (offset + done, start + done);
        let result = retry_on_intr(|| {
            copy_file_range(&from, Some(&mut at), output.file(), Some(&mut to), chunk)
        });
        match result {
            // Another filesystem, or one without support.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return Ok(done);
            }
            Err(e) => {
                let action = format!("copy {chunk} bytes of {} to", source.path().shown());
                return Err(Error::io(action, output.path(), e.into()));
            }
            // The end of the source, which then changed: reading finds out.
            Ok(0) => return Ok(done),
            Ok(count) => {
                output.copied(start + done, count as u64)?;
                done += count as u64;
            }
        }
    }
    Ok(done)
}

fn through_memory(
    stored: &Stored,
    source: &dyn Blob,
    offset: u64,
    output: &Output,
    start: u64,
    len: u64,
) -> Result<()> {
    let end = start + len;
    let mut at = start;
    while at < end {
        let stop = end.min((at + 1).next_multiple_of(BUFFER));
        let range = offset + (at - start)..offset + (stop - start);
        output.write_all_at(&stored.read(source, range)?, at)?;
        at = stop;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::materialize::output::Target;
    use std::fs;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[derive(Default)]
    struct Told(AtomicU64);

    impl crate::jobs::Progress for Told {
        fn advance(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_way_copies_every_byte_of_the_range_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 65521 % 256) as u8).collect();
        let from = directory.path().join("source");
        fs::write(&from, &bytes).unwrap();
        let source = LocalFile::new(from.as_path()).unwrap();
        let to = directory.path().join("copy");
        for way in [Way::Memory, Way::Blocks, Way::Kernel] {
            for (offset, start, len) in [
                (0, 0, bytes.len()),
                (4096, 8192, 8192),
                (100, 4196, 2 << 20),
                (100, 100, 50),
                (8, 4096, (2 << 20) + 5),
                (7, 9, 0),
            ] {
                fs::write(&to, b"").unwrap();
                let target = Target::new(to.clone(), 1, false);
                let (told, failed) = (Told::default(), AtomicBool::new(false));
                let make = || Ok(File::options().write(true).open(&to).unwrap());
                let output = Output::new(&target, make, &told, &failed).unwrap();
                by(
                    way,
                    &Stored::default(),
                    &source,
                    offset as u64,
                    &output,
                    start as u64,
                    len as u64,
                )
                .unwrap();
                let mut expected = bytes[offset..offset + len].to_vec();
                if len > 0 {
                    expected.splice(0..0, vec![0; start]);
                }
                let case = format!("{way:?}: {len} bytes from {offset} to {start}");
                assert!(fs::read(&to).unwrap() == expected, "{case}");
                assert_eq!(told.0.load(Ordering::Relaxed), len as u64, "{case}");
            }
        }
    }
}

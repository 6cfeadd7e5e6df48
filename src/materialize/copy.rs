//! Copying a range of a source file, inside the kernel where it can: filesystems with reflinks
//! then share the blocks and copy nothing.

use rustix::fs::copy_file_range;
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::materialize::output::Output;
use crate::source::SourceFile;

/// Bytes that the kernel is asked to copy at once, so that progress is seen.
const KERNEL_CHUNK: u64 = 64 << 20;
/// Bytes that are copied at once through memory.
const BUFFER: u64 = 1 << 20;

/// Copies `len` bytes of `source` from `offset` to byte `start` of `output`.
///
/// # Errors
/// [`Error::SourceChanged`] if the source is no longer what was planned: before, or after the
/// last byte.
pub(super) fn range(
    source: &SourceFile,
    offset: u64,
    output: &Output,
    start: u64,
    len: u64,
) -> Result<()> {
    source.check_unchanged()?;
    let done = in_kernel(source, offset, output, start, len)?;
    through_memory(source, offset + done, output, start + done, len - done)?;
    source.check_unchanged()
}

/// Copies what the kernel can copy; returns how many bytes that is.
fn in_kernel(
    source: &SourceFile,
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
            copy_file_range(from, Some(&mut at), output.file(), Some(&mut to), chunk)
        });
        match result {
            // Another filesystem, or one without support.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return Ok(done);
            }
            Err(e) => {
                let action = format!("copy {chunk} bytes of {} to", source.path().display());
                return Err(Error::io(action, output.path(), e.into()));
            }
            // The end of the source, which then changed: reading finds out.
            Ok(0) => return Ok(done),
            Ok(count) => {
                output.wrote(start + done, count as u64);
                done += count as u64;
            }
        }
    }
    Ok(done)
}

fn through_memory(
    source: &SourceFile,
    offset: u64,
    output: &Output,
    start: u64,
    len: u64,
) -> Result<()> {
    let mut buffer = vec![0; len.min(BUFFER) as usize];
    let mut done = 0;
    while done < len {
        let count = (len - done).min(BUFFER) as usize;
        source.read_exact_at(&mut buffer[..count], offset + done)?;
        output.write_all_at(&buffer[..count], start + done)?;
        done += count as u64;
    }
    Ok(())
}

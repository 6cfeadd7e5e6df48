//! Large buffers: where there is no memory for one, that is an error of who asked for it, and not
//! the end of the process.

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

use crate::error::{Error, Result};

/// Gives `bytes` the length `len`; bytes that are new are 0.
pub(crate) fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<()> {
    let more = len.saturating_sub(bytes.len());
    let reserved = bytes.try_reserve_exact(more);
    reserved.map_err(|_| Error::no_memory(len))?;
    bytes.resize(len, 0);
    Ok(())
}

/// An empty buffer that `capacity` bytes fit into.
pub(crate) fn with_capacity(capacity: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(capacity);
    reserved.map_err(|_| Error::no_memory(capacity))?;
    Ok(bytes)
}

/// Some processors (AMD Zen) copy at a third of their speed to where a page is 1 to 63 bytes further
/// along than at the source; so what is copied to begins with a page, and not behind the 16 bytes that
/// an allocator keeps there.
pub(crate) const PAGE: usize = 4096;

/// How far it is from the beginning of `bytes`' memory to that of a page, less than [`PAGE`].
pub(crate) fn to_page(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr().wrapping_neg() % PAGE
}

/// Memory in huge pages, where the kernel has some: a disk fills it twice as fast as as many pages
/// that lie here and there.
pub(crate) struct HugePages {
    map: MmapMut,
    /// Where the first one begins.
    start: usize,
    len: usize,
}

impl HugePages {
    /// Bytes of one.
    pub(crate) const SIZE: usize = 2 << 20;

    /// At least `len` bytes.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let out_of_memory = || Error::no_memory(len);
        let whole = len.checked_next_multiple_of(Self::SIZE);
        let whole = whole.ok_or_else(out_of_memory)?;
        // What is mapped and not touched takes no memory.
        let mapped = whole.checked_add(Self::SIZE).ok_or_else(out_of_memory)?;
        let map = MmapMut::map_anon(mapped).map_err(|_| out_of_memory())?;
        let start = map.as_ptr().addr().wrapping_neg() % Self::SIZE;
        // Without, the pages are small ones.
        let _ = map.advise_range(Advice::HugePage, start, whole);
        Ok(HugePages {
            map,
            start,
            len: whole,
        })
    }
}

/// Asks the kernel for huge pages for those of `bytes` that one fits into: memory that is written for the
/// first time is then found in a fraction of the time. It is no error if there are none.
pub(crate) fn advise_huge_pages(bytes: &mut [u8]) {
    use rustix::mm::{Advice, madvise};
    let start = bytes.as_ptr().addr().wrapping_neg() % HugePages::SIZE;
    let Some(len) = bytes.len().checked_sub(start) else {
        return;
    };
    let len = len / HugePages::SIZE * HugePages::SIZE;
    if len > 0 {
        let pages = bytes[start..start + len].as_mut_ptr().cast();
        // SAFETY: the pages are all in `bytes`, and the advice leaves their content as it is.
        let _ = unsafe { madvise(pages, len, Advice::LinuxHugepage) };
    }
}

impl Deref for HugePages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }
}

impl DerefMut for HugePages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }
}

impl fmt::Debug for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugePages of {} bytes", self.len)
    }
}

/// A buffer of `len` zeros.
pub(crate) fn zeros(len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    resize(&mut bytes, usize::try_from(len).unwrap_or(usize::MAX))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_page_begins_where_it_is_said_to() {
        for len in [0, 1, 10, 5000, 2 << 20] {
            let mut bytes = vec![0; len];
            bytes.reserve_exact(PAGE);
            let start = to_page(&bytes);
            assert!(start < PAGE);
            assert_eq!((bytes.as_ptr().addr() + start) % PAGE, 0);
        }
    }

    #[test]
    fn huge_pages_begin_where_one_does_and_are_enough() {
        for len in [1, HugePages::SIZE, HugePages::SIZE + 1] {
            let mut pages = HugePages::new(len).unwrap();
            assert_eq!(pages.as_ptr().addr() % HugePages::SIZE, 0);
            assert_eq!(pages.len(), len.next_multiple_of(HugePages::SIZE));
            assert!(pages.iter().all(|&byte| byte == 0));
            pages.fill(7);
        }
        for len in [1 << 62, usize::MAX] {
            let error = HugePages::new(len).unwrap_err();
            assert_eq!(error.code(), Code::NoMemory);
            assert!(error.problem().contains(&len.to_string()), "{error}");
        }
    }

    #[test]
    fn a_buffer_that_no_machine_has_is_an_error() {
        let error = zeros(1 << 62).unwrap_err();
        assert_eq!(error.code(), Code::NoMemory);
        assert!(
            error.problem().contains(&(1u64 << 62).to_string()),
            "{error}"
        );
        let mut bytes = vec![7];
        assert!(resize(&mut bytes, usize::MAX).is_err());
        assert_eq!(bytes, [7]);
        resize(&mut bytes, 3).unwrap();
        assert_eq!(bytes, [7, 0, 0]);
    }
}

//! Reading sources: through the page cache, or past it where they are not in it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::read::buffers::{Buffer, Buffers};
use crate::read::pace::Pace;
use crate::source::{BLOCK, Blob, LocalFile};

/// Reads sources into memory that suits the way.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(super) buffers: Arc<Buffers>,
    /// Of reads that are long enough for their bytes to tell, not the call.
    pub(super) pace: Pace,
    /// Whether what is not in the page cache is read past it.
    direct: bool,
}

impl Stored {
    /// What is shorter is read through the page cache: its neighbours are wanted soon, and come with
    /// it. Nor does it tell how fast a source is.
    const LEAST: u64 = 64 << 10;
    /// Bytes that are read past the page cache at once if they must be copied from there.
    const MOST_COPIED: usize = 4 << 20;

    /// Reads past the page cache if `direct` says so.
    pub(super) fn new(direct: bool) -> Self {
        Stored {
            direct,
            ..Stored::default()
        }
    }

    /// Memory for `len` bytes, with any content.
    pub(super) fn buffer(&self, len: usize) -> Result<Buffer> {
        self.buffers.take(len)
    }

    /// Whether sources are read past the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// The bytes `range` of `blob`.
    ///
    /// # Errors
    /// As [`Blob::read_at`].
    pub(crate) fn read(&self, blob: &dyn Blob, range: Range<u64>) -> Result<Buffer> {
        if let Some(file) = self.wants_direct(blob, &range)? {
            return self.read_direct(file, range);
        }
        let mut bytes = self.buffers.take((range.end - range.start) as usize)?;
        self.read_cached(blob, &mut bytes, range.start)?;
        Ok(bytes)
    }

    /// Fills `bytes` from `offset` of `blob`.
    ///
    /// # Errors
    /// As [`Blob::read_at`].
    pub(crate) fn read_into(&self, blob: &dyn Blob, bytes: &mut [u8], offset: u64) -> Result<()> {
        let range = offset..offset + bytes.len() as u64;
        let Some(file) = self.wants_direct(blob, &range)? else {
            return self.read_cached(blob, bytes, offset);
        };
        let mut at = offset;
        for part in bytes.chunks_mut(Self::MOST_COPIED) {
            let end = at + part.len() as u64;
            part.copy_from_slice(&self.read_direct(file, at..end)?);
            at = end;
        }
        Ok(())
    }

    /// The file to read `range` of `blob` from past the page cache, if it should be.
    fn wants_direct<'b>(
        &self,
        blob: &'b dyn Blob,
        range: &Range<u64>,
    ) -> Result<Option<&'b LocalFile>> {
        if !self.direct || range.end - range.start < Self::LEAST {
            return Ok(None);
        }
        match blob.as_local() {
            Some(file) if file.wants_direct(range)? => Ok(Some(file)),
            _ => Ok(None),
        }
    }

    fn read_cached(&self, blob: &dyn Blob, bytes: &mut [u8], offset: u64) -> Result<()> {
        let start = Instant::now();
        blob.read_at(bytes, offset)?;
        self.note(bytes.len(), start);
        Ok(())
    }

    fn read_direct(&self, file: &LocalFile, range: Range<u64>) -> Result<Buffer> {
        let before = (range.start % BLOCK as u64) as usize;
        let len = (range.end - range.start) as usize;
        let Ok(mut bytes) = self.buffers.take_huge(before, len) else {
            // It takes more addresses than others.
            let mut bytes = self.buffers.take(len)?;
            self.read_cached(file, &mut bytes, range.start)?;
            return Ok(bytes);
        };
        let start = Instant::now();
        let from = range.start - before as u64;
        if !file.read_blocks(bytes.blocks(BLOCK), from, before + len)? {
            file.read_at(&mut bytes, range.start)?;
        }
        self.note(len, start);
        Ok(bytes)
    }

    fn note(&self, len: usize, start: Instant) {
        if len as u64 >= Self::LEAST {
            self.pace.note(len, start.elapsed());
        }
    }
}

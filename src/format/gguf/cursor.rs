//! Reading a file from front to back, piece by piece: how long a header is, only its end says.

use crate::error::{Code, Error, Result};
use crate::memory;
use crate::source::Blob;

/// The longest header, in bytes.
const MAX_HEADER_BYTES: u64 = 512 << 20;

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// A place in a file.
pub(in crate::format) struct Cursor<'a> {
    file: &'a dyn Blob,
    /// What is read of it, and the most bytes that may have.
    what: &'static str,
    max: u64,
    /// The bytes of the file that end at `read`.
    piece: Vec<u8>,
    /// How many of `piece` were taken.
    taken: usize,
    read: u64,
}

impl<'a> Cursor<'a> {
    /// The start of a file that begins with a header.
    pub(super) fn new(file: &'a dyn Blob) -> Self {
        Cursor {
            what: "the header",
            max: MAX_HEADER_BYTES,
            ..Cursor::of_any_length(file)
        }
    }

    /// The start of a file that is read from its start to its end.
    pub(in crate::format) fn of_any_length(file: &'a dyn Blob) -> Self {
        Cursor {
            file,
            what: "the file",
            max: u64::MAX,
            piece: Vec::new(),
            taken: 0,
            read: 0,
        }
    }

    /// How far it is from the start of the file.
    pub(in crate::format) fn position(&self) -> u64 {
        self.read - (self.piece.len() - self.taken) as u64
    }

    /// Bytes that the file has after it.
    pub(in crate::format) fn remaining(&self) -> u64 {
        self.file.len() - self.position()
    }

    /// Checks that `len` bytes of `what` can follow.
    ///
    /// # Errors
    /// If the file, or what a header may be, ends before.
    pub(super) fn check(&self, len: u64, what: &str) -> Result<()> {
        let at = self.position();
        if len > self.remaining() {
            let problem = format!(
                "{} claims {len} bytes for {what} at byte {at}, but the file has only {} bytes",
                self.what,
                self.file.len()
            );
            let error = Error::of_file(Code::Truncated, self.file.location(), problem);
            return Err(error.with_hint("is the download complete?"));
        }
        if at.saturating_add(len) > self.max {
            let problem = format!(
                "{} is longer than the {} bytes that are read",
                self.what, self.max
            );
            let location = self.file.location();
            return Err(Error::of_file(Code::OverLimit, location, problem));
        }
        Ok(())
    }

    /// The next `len` bytes, which are of `what`.
    ///
    /// # Errors
    /// As [`check`](Self::check), or if they cannot be read.
    pub(in crate::format) fn take(&mut self, len: u64, what: &str) -> Result<&[u8]> {
        self.check(len, what)?;
        let start = self.taken;
        if len > (self.piece.len() - start) as u64 {
            return self.take_new(len);
        }
        self.taken += len as usize;
        Ok(&self.piece[start..self.taken])
    }

    /// Passes `len` bytes of `what`, which are not read.
    ///
    /// # Errors
    /// If the file ends before.
    pub(in crate::format) fn skip(&mut self, len: u64, what: &str) -> Result<()> {
        self.check(len, what)?;
        if len <= (self.piece.len() - self.taken) as u64 {
            self.taken += len as usize;
            return Ok(());
        }
        self.read = self.position() + len;
        self.piece = Vec::new();
        self.taken = 0;
        Ok(())
    }

    /// The same, where they are not all here.
    fn take_new(&mut self, len: u64) -> Result<&[u8]> {
        let from = self.position();
        let want = len.max(PIECE.min(self.file.len() - from));
        let mut piece = memory::zeros(want)?;
        self.file.read_at(&mut piece, from)?;
        self.piece = piece;
        self.read = from + want;
        self.taken = len as usize;
        Ok(&self.piece[..self.taken])
    }

    /// The same as a buffer of their own.
    pub(super) fn take_vec(&mut self, len: u64, what: &str) -> Result<Vec<u8>> {
        self.check(len, what)?;
        if len <= (self.piece.len() - self.taken) as u64 {
            return Ok(self.take(len, what)?.to_vec());
        }
        let from = self.position();
        let mut bytes = memory::zeros(len)?;
        self.file.read_at(&mut bytes, from)?;
        self.piece = Vec::new();
        self.taken = 0;
        self.read = from + len;
        Ok(bytes)
    }

    pub(in crate::format) fn u32(&mut self, what: &str) -> Result<u32> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("4 bytes")))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        let bytes = self.take(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }

    /// The bytes of a string.
    pub(super) fn string(&mut self, what: &str) -> Result<&[u8]> {
        let len = self.u64(what)?;
        self.take(len, what)
    }
}

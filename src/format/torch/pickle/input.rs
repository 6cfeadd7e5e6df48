//! The bytes of a pickle: read piece by piece, as nothing but its end says how long it is.

use crate::error::{Code, Error, Result};
use crate::source::Blob;

/// How much of a pickle is read.
#[derive(Debug, Clone, Copy)]
pub(in crate::format) struct Limits {
    pub(in crate::format) bytes: u64,
    /// Values that it may have, and that may be on its stack.
    pub(in crate::format) values: usize,
}

/// Those of a checkpoint, which takes some 200 bytes and 20 values for each tensor.
const LIMITS: Limits = Limits {
    bytes: 100_000_000,
    values: 1 << 22,
};

/// Bytes that are read at once, and the most that are asked for at once.
const PIECE: usize = 64 << 10;

/// Bytes of a file, from the beginning of a pickle on.
pub(in crate::format) struct Input<'a> {
    blob: &'a dyn Blob,
    /// Where the pickle begins, and where the bytes end that it can be in.
    start: u64,
    end: u64,
    /// The next byte.
    at: u64,
    piece: Vec<u8>,
    piece_start: u64,
    pub(super) limits: Limits,
}

impl<'a> Input<'a> {
    /// The longest text that is kept.
    pub(super) const MAX_TEXT: usize = PIECE;

    /// Bytes of `blob` from `start` to `end`.
    pub(in crate::format) fn new(blob: &'a dyn Blob, start: u64, end: u64) -> Self {
        Self::limited(blob, start, end, LIMITS)
    }

    /// The same of a pickle that may be larger.
    pub(in crate::format) fn limited(
        blob: &'a dyn Blob,
        start: u64,
        end: u64,
        limits: Limits,
    ) -> Self {
        Input {
            blob,
            start,
            end,
            at: start,
            piece: Vec::new(),
            piece_start: start,
            limits,
        }
    }

    /// Where the next byte is in the file.
    pub(in crate::format) fn at(&self) -> u64 {
        self.at
    }

    /// Says that another pickle begins here.
    pub(super) fn begin(&mut self) {
        self.start = self.at;
    }

    /// An error about the pickle, read as far as this.
    pub(super) fn error(&self, problem: &str) -> Error {
        let (at, start) = (self.at - self.start, self.start);
        let problem = format!("the pickle at byte {start} is invalid: byte {at} of it: {problem}");
        Error::of_file(Code::BadTorchFile, self.blob.location(), problem)
    }

    /// The error that it has more `what` than are read.
    pub(super) fn over_limit(&self, max: u64, what: &str) -> Error {
        let start = self.start;
        let problem = format!(
            "the pickle at byte {start} has more than {max} {what}, the most that are read"
        );
        Error::of_file(Code::OverLimit, self.blob.location(), problem)
    }

    /// The next `len` bytes, at most [`MAX_TEXT`](Self::MAX_TEXT).
    pub(super) fn take(&mut self, len: usize) -> Result<&[u8]> {
        let from = self.at;
        self.skip(len as u64)?;
        let is_here =
            from >= self.piece_start && self.at <= self.piece_start + self.piece.len() as u64;
        if !is_here {
            self.piece_start = from;
            self.piece
                .resize((self.end - from).min(PIECE as u64) as usize, 0);
            self.blob.read_at(&mut self.piece, from)?;
        }
        let start = (from - self.piece_start) as usize;
        Ok(&self.piece[start..start + len])
    }

    /// Skips the next `len` bytes.
    pub(super) fn skip(&mut self, len: u64) -> Result<()> {
        if len > self.end - self.at {
            return Err(self.error("its bytes end too early"));
        }
        let max = self.limits.bytes;
        if self.at - self.start + len > max {
            return Err(self.over_limit(max, "bytes"));
        }
        self.at += len;
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many as were asked for"))
    }

    /// The bytes up to the next newline, without it; `None` if they are too many to be kept.
    pub(super) fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut is_short = true;
        loop {
            match self.array()? {
                [b'\n'] => return Ok(is_short.then_some(line)),
                _ if line.len() == Self::MAX_TEXT => is_short = false,
                [byte] => line.push(byte),
            }
        }
    }
}

//! A part of a file as a file of its own.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::source::{Attributes, Blob, Identity};

/// Bytes that are read of the beginning and of the end, once: all that a file of `torch.save` with a single tensor
/// has besides its elements.
const HEAD: u64 = 2048;
const TAIL: u64 = 1536;

/// `len` bytes of `of` from `start` on.
#[derive(Debug)]
pub(super) struct Window {
    of: Arc<dyn Blob>,
    start: u64,
    len: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Window {
    /// The window, which must be inside of `of`.
    ///
    /// # Errors
    /// If its beginning or end cannot be read.
    pub(super) fn new(of: &Arc<dyn Blob>, start: u64, len: u64) -> Result<Self> {
        let (head, tail) = match len {
            len if len <= HEAD + TAIL => (len, 0),
            _ => (HEAD, TAIL),
        };
        let read = |at: u64, len: u64| -> Result<Vec<u8>> {
            let mut bytes = vec![0; len as usize];
            of.read_at(&mut bytes, start + at)?;
            Ok(bytes)
        };
        Ok(Window {
            head: read(0, head)?,
            tail: read(len - tail, tail)?,
            of: of.clone(),
            start,
            len,
        })
    }
}

impl Blob for Window {
    fn len(&self) -> u64 {
        self.len
    }

    fn identity(&self) -> Identity {
        let (start, len) = (self.start, self.len);
        Identity::new(format!("{start}+{len} of {}", self.of.identity()))
    }

    fn location(&self) -> &Arc<Path> {
        self.of.location()
    }

    fn attributes(&self) -> Attributes {
        self.of.attributes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let tail_start = self.len - self.tail.len() as u64;
        for (known, start) in [(&self.head, 0), (&self.tail, tail_start)] {
            let inside = offset.checked_sub(start).and_then(|at| {
                let at = usize::try_from(at).ok()?;
                known.get(at..at.checked_add(buffer.len())?)
            });
            if let Some(bytes) = inside {
                buffer.copy_from_slice(bytes);
                return Ok(());
            }
        }
        self.of.read_at(buffer, self.start + offset)
    }

    fn check(&self) -> Result<()> {
        self.of.check()
    }
}

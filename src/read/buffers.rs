//! Memory for the inputs and outputs of tiles, used again and again: fresh memory would be
//! cleared, and mapped page by page, for every tile.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::read::sync::Mutex;

use crate::error::{Error, Result};
use crate::memory;

/// Buffers that nobody uses now, by capacity.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    by_capacity: HashMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

impl Buffers {
    /// Idle buffers beyond this many bytes are freed.
    const MOST_IDLE_BYTES: usize = 32 << 20;

    /// A buffer of `len` bytes of no particular value.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Result<Buffer> {
        let capacity = len.next_power_of_two() + memory::PAGE;
        let reused = {
            let mut idle = self.idle.lock();
            let reused = idle.by_capacity.get_mut(&capacity).and_then(Vec::pop);
            idle.bytes -= reused.as_ref().map_or(0, Vec::capacity);
            reused
        };
        let mut bytes = match reused {
            Some(bytes) => bytes,
            None => {
                memory::with_capacity(capacity).map_err(|_| Error::OutOfMemory { bytes: len })?
            }
        };
        let start = memory::to_page(&bytes);
        bytes.resize(start + len, 0);
        Ok(Buffer {
            bytes,
            start,
            home: Some(self.clone()),
        })
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut idle = self.idle.lock();
        if idle.bytes + bytes.capacity() <= Self::MOST_IDLE_BYTES {
            idle.bytes += bytes.capacity();
            let same = idle.by_capacity.entry(bytes.capacity()).or_default();
            same.push(bytes);
        }
    }
}

/// Bytes whose memory goes back to where it was taken from.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Where they begin in it.
    start: usize,
    home: Option<Arc<Buffers>>,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Buffer {
            bytes,
            start: 0,
            home: None,
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} bytes", self.len())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give(std::mem::take(&mut self.bytes));
        }
    }
}

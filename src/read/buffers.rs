//! Scratch memory for the inputs of tiles, used again and again: fresh memory would be cleared,
//! and mapped page by page, for every tile.

use parking_lot::Mutex;

/// Buffers that no tile is being computed from now.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    idle: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// More than this many idle buffers are freed, and so are buffers of more than this many
    /// bytes: they would only be held for a rare case.
    const MOST_IDLE: usize = 16;
    const MOST_BYTES: usize = 4 << 20;

    /// A buffer of `len` bytes of no particular value.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.idle.lock().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Gives a buffer back.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() <= Self::MOST_BYTES {
            let mut idle = self.idle.lock();
            if idle.len() < Self::MOST_IDLE {
                idle.push(buffer);
            }
        }
    }
}

//! Memory of blocks, used again and again: fresh memory would be cleared, and mapped page by page, for each.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Memory that is not in use.
#[derive(Debug)]
pub(super) struct Memory {
    /// Bytes of a whole block.
    len: usize,
    kept: Mutex<Vec<Vec<u8>>>,
}

/// The bytes of a block so far.
#[derive(Debug)]
pub(super) struct Block {
    home: Arc<Memory>,
    bytes: Vec<u8>,
}

impl Memory {
    /// How much of it is kept, in whole blocks.
    const MOST: usize = 32;

    /// Memory of blocks of `len` bytes.
    pub(super) fn new(len: usize) -> Arc<Self> {
        Arc::new(Memory {
            len,
            kept: Mutex::default(),
        })
    }

    /// A block without bytes, which has room for `len`.
    pub(super) fn block(self: &Arc<Self>, len: usize) -> Block {
        // What is shorter takes no more than it needs.
        let kept = if len == self.len {
            self.kept.lock().pop()
        } else {
            None
        };
        Block {
            home: self.clone(),
            bytes: kept.unwrap_or_else(|| Vec::with_capacity(len)),
        }
    }
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What has come; the memory is given back when nobody uses it any more.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut kept = self.home.kept.lock();
        if self.bytes.capacity() == self.home.len && kept.len() < Memory::MOST {
            self.bytes.clear();
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1000;

    #[test]
    fn memory_of_whole_blocks_is_used_again_and_has_nothing_of_what_was_in_it() {
        let memory = Memory::new(LEN);
        let fill = |len: usize, byte: u8| {
            let mut block = memory.block(len);
            assert_eq!(block.len(), 0);
            block.add(&vec![byte; len]);
            block.freeze()
        };
        let (first, short) = (fill(LEN, 1), fill(100, 2));
        let (at, copy) = (first.as_ptr(), first.clone());
        drop((first, short));
        assert!(memory.kept.lock().is_empty(), "somebody has it");
        drop(copy);
        assert_eq!(memory.kept.lock().len(), 1);
        let second = fill(LEN, 3);
        assert_eq!(second.as_ptr(), at);
        assert!(second.len() == LEN && second.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn memory_that_is_kept_is_bounded() {
        let memory = Memory::new(LEN);
        let blocks: Vec<Block> = (0..2 * Memory::MOST).map(|_| memory.block(LEN)).collect();
        drop(blocks);
        assert_eq!(memory.kept.lock().len(), Memory::MOST);
    }
}

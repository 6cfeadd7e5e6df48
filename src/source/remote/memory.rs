//! Memory of blocks, used again and again: fresh memory would be cleared, and mapped page by page, for each.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::source::remote::blocks::BLOCK;

/// Memory that is not in use.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Vec<Vec<u8>>>);

/// The bytes of a block so far.
#[derive(Debug)]
pub(super) struct Block {
    home: Arc<Memory>,
    bytes: Vec<u8>,
}

impl Memory {
    /// How much of it is kept, in whole blocks.
    const MOST: usize = 32;

    /// A block without bytes, which has room for `len`.
    pub(super) fn block(self: &Arc<Self>, len: usize) -> Block {
        // What is shorter takes no more than it needs.
        let kept = if len == BLOCK as usize {
            self.0.lock().pop()
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
        let mut kept = self.home.0.lock();
        if self.bytes.capacity() == BLOCK as usize && kept.len() < Memory::MOST {
            self.bytes.clear();
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_whole_blocks_is_used_again_and_has_nothing_of_what_was_in_it() {
        let memory = Arc::new(Memory::default());
        let fill = |len: usize, byte: u8| {
            let mut block = memory.block(len);
            assert_eq!(block.len(), 0);
            block.add(&vec![byte; len]);
            block.freeze()
        };
        let (first, short) = (fill(BLOCK as usize, 1), fill(100, 2));
        let (at, copy) = (first.as_ptr(), first.clone());
        drop((first, short));
        assert!(memory.0.lock().is_empty(), "somebody has it");
        drop(copy);
        assert_eq!(memory.0.lock().len(), 1);
        let second = fill(BLOCK as usize, 3);
        assert_eq!(second.as_ptr(), at);
        assert!(second.len() == BLOCK as usize && second.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn memory_that_is_kept_is_bounded() {
        let memory = Arc::new(Memory::default());
        let blocks: Vec<Block> = (0..2 * Memory::MOST)
            .map(|_| memory.block(BLOCK as usize))
            .collect();
        drop(blocks);
        assert_eq!(memory.0.lock().len(), Memory::MOST);
    }
}

//! Memory for pieces of blocks, used again and again: fresh memory would be cleared, and mapped page by page, for each.

use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

use crate::source::remote::cache::index::PIECE;

/// Memory that is not in use.
#[derive(Debug, Default)]
pub(super) struct Scratch(Mutex<Vec<Box<[u8]>>>);

/// Memory for a piece of a block, with any content.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    home: &'a Scratch,
    /// Empty after it was given back.
    bytes: Box<[u8]>,
}

impl Scratch {
    /// How many of them are kept.
    const MOST: usize = 8;

    pub(super) fn take(&self) -> Piece<'_> {
        let kept = self.0.lock().pop();
        Piece {
            home: self,
            bytes: kept.unwrap_or_else(|| vec![0; PIECE].into_boxed_slice()),
        }
    }
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Piece<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock();
        if kept.len() < Scratch::MOST {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

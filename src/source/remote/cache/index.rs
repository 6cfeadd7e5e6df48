//! The index of an object: an entry for each of its blocks.
//!
//! | bytes of an entry | |
//! |---|---|
//! | 0 to 7 | the word: a number that grows with each change, and the state in its lowest two bits |
//! | 8 to 15 | when it was last used, in seconds |
//! | 16 to 79 | the XXH3 checksums, 64 bits each, of the pieces of the block |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use twox_hash::XxHash3_64;

use crate::source::remote::blocks::BLOCK;

/// Bytes of a piece of a block: what has a checksum, and stays in a cache of the processor while it is checked.
pub(super) const PIECE: usize = 128 << 10;

/// Pieces of a block.
const PIECES: usize = BLOCK as usize / PIECE;

/// Bytes of an entry.
pub(super) const ENTRY: u64 = 16 + 8 * PIECES as u64;

/// Seconds from one note of use to the next.
const TOUCH: u64 = 60;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    const STATE: u64 = 3;
    const PRESENT: u64 = 2;
    const BUSY: u64 = 1;

    pub(super) fn is_present(self) -> bool {
        self.0 & Self::STATE == Self::PRESENT
    }

    /// The part that changes; never 0 of a block that is there.
    pub(super) fn short(self) -> u32 {
        self.0 as u32
    }

    /// One change later.
    pub(super) fn next(self) -> Self {
        Word((self.0 | Self::STATE).wrapping_add(1))
    }

    pub(super) fn busy(self) -> Self {
        Word(self.0 & !Self::STATE | Self::BUSY)
    }

    pub(super) fn present(self) -> Self {
        Word(self.0 & !Self::STATE | Self::PRESENT)
    }

    pub(super) fn empty(self) -> Self {
        Word(self.0 & !Self::STATE)
    }
}

/// What the index says of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) word: Word,
    pub(super) used: u64,
    pub(super) checksums: [u64; PIECES],
}

impl Entry {
    fn parse(bytes: &[u8; ENTRY as usize]) -> Self {
        let mut parts = bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes);
        let mut next = || parts.next().expect("an entry is whole");
        Entry {
            word: Word(next()),
            used: next(),
            checksums: std::array::from_fn(|_| next()),
        }
    }

    pub(super) fn checksum_of(piece: &[u8]) -> u64 {
        XxHash3_64::oneshot(piece)
    }
}

/// The index of an object.
#[derive(Debug)]
pub(super) struct Index(File);

impl Index {
    pub(super) fn new(file: File) -> Self {
        Index(file)
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }

    /// The word of `block`.
    pub(super) fn word(&self, block: u64) -> io::Result<Word> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, block * ENTRY)?;
        Ok(Word(u64::from_le_bytes(bytes)))
    }

    /// The entry of `block`. What was never written is empty.
    pub(super) fn entry(&self, block: u64) -> io::Result<Entry> {
        let mut bytes = [0; ENTRY as usize];
        match self.0.read_exact_at(&mut bytes, block * ENTRY) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            // The last entry may be cut.
            Err(_) => Ok(Entry::parse(&[0; ENTRY as usize])),
            Ok(()) => Ok(Entry::parse(&bytes)),
        }
    }

    /// The entries of all blocks.
    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut bytes = vec![0; usize::try_from(self.0.metadata()?.len()).unwrap_or(0)];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.as_chunks().0.iter().map(Entry::parse).collect())
    }

    pub(super) fn set_word(&self, block: u64, word: Word) -> io::Result<()> {
        self.0.write_all_at(&word.0.to_le_bytes(), block * ENTRY)
    }

    /// Notes that `block` is `bytes`.
    pub(super) fn set(&self, block: u64, word: Word, bytes: &[u8]) -> io::Result<()> {
        let mut rest = [0; ENTRY as usize - 8];
        rest[..8].copy_from_slice(&now().to_le_bytes());
        let checksums = rest[8..].chunks_exact_mut(8);
        for (checksum, piece) in checksums.zip(bytes.chunks(PIECE)) {
            checksum.copy_from_slice(&Entry::checksum_of(piece).to_le_bytes());
        }
        self.0.write_all_at(&rest, block * ENTRY + 8)?;
        self.set_word(block, word)
    }

    /// Notes that `block` is used, unless that was noted a short while ago.
    pub(super) fn touch(&self, block: u64, entry: &Entry) -> io::Result<()> {
        let now = now();
        if now.saturating_sub(entry.used) < TOUCH {
            return Ok(());
        }
        self.0.write_all_at(&now.to_le_bytes(), block * ENTRY + 8)
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_word_gives_another_one() {
        let mut word = Word(0);
        let mut seen = vec![word];
        for _ in 0..3 {
            for next in [
                word.next().busy(),
                word.next().present(),
                word.next().next().empty(),
            ] {
                assert!(!seen.contains(&next));
                assert_eq!(next.is_present(), next == word.next().present());
                seen.push(next);
            }
            word = word.next().next().empty();
        }
    }
}

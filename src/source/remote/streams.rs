//! Who reads an object from front to back, and how far ahead of them it is fetched.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::remote::blocks::BLOCK;

/// What one request asks for, where more than a few blocks are wanted.
pub(super) const SPAN: u64 = 8 << 20;

/// Bytes that were fetched ahead in all, and what came of them. What is read may be parts of a file: the
/// bytes that nobody comes to are bounded by the bytes that somebody did.
#[derive(Debug, Default)]
pub(super) struct Credit {
    /// Bytes fetched that somebody asked for.
    used: AtomicU64,
    /// Bytes fetched ahead that nobody asked for so far.
    unused: AtomicU64,
}

impl Credit {
    /// Bytes that may be fetched in vain from the start.
    const BASE: u64 = 32 << 20;
    /// The part of what is used that may be fetched in vain.
    const SHARE: u64 = 8;

    fn left(&self) -> u64 {
        let allowed = Self::BASE + self.used.load(Ordering::Relaxed) / Self::SHARE;
        allowed.saturating_sub(self.unused.load(Ordering::Relaxed))
    }

    fn ahead(&self, bytes: u64) {
        self.unused.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that `bytes` were asked for, which were fetched ahead or only then.
    fn asked(&self, bytes: u64, was_ahead: bool) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        if was_ahead {
            self.unused.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The readers of an object.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// The most recently used last.
    known: Vec<Stream>,
    /// Blocks that were fetched ahead and not asked for.
    ahead: HashSet<u64>,
}

#[derive(Debug)]
struct Stream {
    /// The end of what was read.
    position: u64,
    /// How much was read.
    run: u64,
    /// The end of what was fetched ahead.
    ahead: u64,
}

impl Streams {
    /// Readers that are followed at once.
    const MOST: usize = 8;
    /// How far from where a stream ended the next read of it may begin: threads that read together
    /// do not come in order.
    const SLACK: u64 = 4 << 20;

    /// Notes that `blocks` are asked for; `fetched` says which had to be fetched for that.
    pub(super) fn asked(&mut self, block: u64, fetched: bool, credit: &Credit) {
        let was_ahead = self.ahead.remove(&block);
        if was_ahead || fetched {
            credit.asked(BLOCK, was_ahead);
        }
    }

    /// Notes that `block` is fetched ahead.
    pub(super) fn fetched_ahead(&mut self, block: u64, credit: &Credit) {
        if self.ahead.insert(block) {
            credit.ahead(BLOCK);
        }
    }

    /// Notes a read of `range` of an object of `len` bytes; gives what to fetch ahead now, from block to
    /// block, at most `most` bytes ahead of the reader.
    pub(super) fn advance(
        &mut self,
        range: &Range<u64>,
        len: u64,
        most: u64,
        credit: &Credit,
    ) -> Range<u64> {
        let continued = self.known.iter().rposition(|stream| {
            let near = stream.position.saturating_sub(Self::SLACK)..=stream.position + Self::SLACK;
            near.contains(&range.start)
        });
        let Some(position) = continued else {
            if self.known.len() == Self::MOST {
                self.known.remove(0);
            }
            self.known.push(Stream {
                position: range.end,
                run: range.end - range.start,
                ahead: range.end,
            });
            return 0..0;
        };
        let mut stream = self.known.remove(position);
        stream.position = stream.position.max(range.end);
        stream.run += range.end - range.start;
        let window = stream.run.min(most);
        let from = stream.ahead.max(stream.position).div_ceil(BLOCK) * BLOCK;
        let end = (stream.position + window).min(len);
        // In whole spans, once the window has some; so that requests are few.
        let unit = if window >= 2 * SPAN { SPAN } else { BLOCK };
        let mut to = if end == len { len } else { end / unit * unit };
        // Not until half of the window is free.
        if to < len && to.saturating_sub(from) < window / 2 {
            to = from;
        }
        to = to.min(from + credit.left() / BLOCK * BLOCK);
        let ahead = if to > from { from..to } else { 0..0 };
        stream.ahead = stream.ahead.max(ahead.end);
        self.known.push(stream);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Reads `ranges` in pieces of a MiB; returns the bytes that were used and fetched, where
    /// everything that is wanted is fetched.
    fn read(streams: &mut Streams, credit: &Credit, len: u64, range: Range<u64>) -> u64 {
        let mut fetched = 0;
        let mut at = range.start;
        while at < range.end {
            let to = (at + MIB).min(range.end);
            let block = at / MIB;
            let known = streams.ahead.contains(&block);
            streams.asked(block, !known, credit);
            fetched += if known { 0 } else { MIB };
            let ahead = streams.advance(&(at..to), len, 256 * MIB, credit);
            for block in ahead.start / MIB..ahead.end.div_ceil(MIB) {
                streams.fetched_ahead(block, credit);
                fetched += MIB;
            }
            at = to;
        }
        fetched
    }

    #[test]
    fn a_reader_of_all_is_followed_further_and_further_and_nothing_is_fetched_twice() {
        let (mut streams, credit) = (Streams::default(), Credit::default());
        let len = 512 * MIB;
        assert_eq!(read(&mut streams, &credit, len, 0..len), len);
        assert_eq!(credit.used.load(Ordering::Relaxed), len);
        assert_eq!(credit.unused.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reader_here_and_there_is_not_followed() {
        let (mut streams, credit) = (Streams::default(), Credit::default());
        for at in [900, 100, 500, 300, 700] {
            assert_eq!(
                streams.advance(&(at * MIB..at * MIB + 4096), 1000 * MIB, MIB, &credit),
                0..0
            );
        }
    }

    #[test]
    fn what_is_fetched_in_vain_for_readers_of_parts_is_bounded_by_what_is_used() {
        let (mut streams, credit) = (Streams::default(), Credit::default());
        let mut fetched = 0;
        let mut used = 0;
        // Each tensor of 200 MiB is read as an eighth of it.
        for tensor in 0..200 {
            let start = tensor * 200 * MIB;
            fetched += read(&mut streams, &credit, 40_000 * MIB, start..start + 25 * MIB);
            used += 25 * MIB;
        }
        let bound = used + used / 8 + 32 * MIB;
        assert!(fetched > used && fetched <= bound, "{fetched} of {used}");
    }
}

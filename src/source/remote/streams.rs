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
    /// Those of them that were ahead of readers who have gone elsewhere.
    left_behind: AtomicU64,
}

impl Credit {
    /// Bytes that may be ahead of readers from the start.
    const BASE: u64 = 32 << 20;
    /// The part of what is used that may be.
    const SHARE: u64 = 8;
    /// The same of bytes whose readers have gone elsewhere.
    const BASE_LEFT_BEHIND: u64 = 4 << 20;
    const SHARE_LEFT_BEHIND: u64 = 24;

    fn left(&self) -> u64 {
        let used = self.used.load(Ordering::Relaxed);
        let unused = self.unused.load(Ordering::Relaxed);
        // Another reader may have come to what one left behind.
        let left_behind = self.left_behind.load(Ordering::Relaxed).min(unused);
        if left_behind > Self::BASE_LEFT_BEHIND + used / Self::SHARE_LEFT_BEHIND {
            return 0;
        }
        (Self::BASE + used / Self::SHARE).saturating_sub(unused)
    }

    /// Notes that the reader of `bytes` that were fetched ahead has gone elsewhere, or is back.
    fn leave(&self, bytes: u64) {
        self.left_behind.fetch_add(bytes, Ordering::Relaxed);
    }

    fn come_back(&self, bytes: u64) {
        self.left_behind.fetch_sub(bytes, Ordering::Relaxed);
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
    /// Reads so far.
    reads: u64,
}

#[derive(Debug)]
struct Stream {
    /// The end of what was read.
    position: u64,
    /// How much was read.
    run: u64,
    /// The end of what was fetched ahead.
    ahead: u64,
    /// The number of its last read among those of all.
    last: u64,
    /// What was ahead of its reader when that was last seen elsewhere.
    left_behind: Option<u64>,
}

impl Streams {
    /// Readers that are followed at once.
    const MOST: usize = 8;
    /// Reads elsewhere after which the reader of a stream is taken to have gone.
    const PATIENCE: u64 = 16;
    /// How far from where a stream ended the next read of it may begin: threads that read together
    /// do not come in order.
    const SLACK: u64 = 4 << 20;

    /// Notes that `block` is asked for, and whether it has to be `fetched` for that: what was fetched ahead then
    /// made room for something else before anybody asked for it, and was in vain.
    pub(super) fn asked(&mut self, block: u64, fetched: bool, credit: &Credit) {
        let was_ahead = self.ahead.remove(&block);
        if was_ahead || fetched {
            credit.asked(BLOCK, was_ahead && !fetched);
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
        self.reads += 1;
        for stream in &mut self.known {
            stream.leave_unless_read(self.reads, credit);
        }
        let continued = self.known.iter().rposition(|stream| {
            let near = stream.position.saturating_sub(Self::SLACK)..=stream.position + Self::SLACK;
            near.contains(&range.start)
        });
        let Some(position) = continued else {
            if self.known.len() == Self::MOST {
                let mut oldest = self.known.remove(0);
                oldest.leave_unless_read(u64::MAX, credit);
            }
            self.known.push(Stream {
                position: range.end,
                run: range.end - range.start,
                ahead: range.end,
                last: self.reads,
                left_behind: None,
            });
            return 0..0;
        };
        let mut stream = self.known.remove(position);
        stream.last = self.reads;
        if let Some(bytes) = stream.left_behind.take() {
            credit.come_back(bytes);
        }
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

impl Stream {
    /// Notes that its reader has gone, if it has not read for long when `reads` were made.
    fn leave_unless_read(&mut self, reads: u64, credit: &Credit) {
        if self.left_behind.is_none() && reads - self.last > Streams::PATIENCE {
            let bytes = self.ahead.saturating_sub(self.position);
            self.left_behind = Some(bytes);
            credit.leave(bytes);
        }
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
        let len = 40_000 * MIB;
        let mut fetched = 0;
        let mut used = 0;
        // Each tensor of 200 MiB is read as an eighth of it.
        for tensor in 0..200 {
            let start = tensor * 200 * MIB;
            fetched += read(&mut streams, &credit, len, start..start + 25 * MIB);
            used += 25 * MIB;
        }
        // Two readers may have gone before that is seen.
        let bound = used + used / Credit::SHARE_LEFT_BEHIND + 2 * 32 * MIB;
        assert!(fetched > used && fetched <= bound, "{fetched} of {used}");
    }

    #[test]
    fn what_was_fetched_ahead_and_again_when_it_was_asked_for_was_in_vain() {
        let (mut streams, credit) = (Streams::default(), Credit::default());
        for block in [1, 2] {
            streams.fetched_ahead(block, &credit);
        }
        streams.asked(1, false, &credit);
        streams.asked(2, true, &credit);
        assert_eq!(credit.used.load(Ordering::Relaxed), 2 * BLOCK);
        assert_eq!(credit.unused.load(Ordering::Relaxed), BLOCK);
    }

    #[test]
    fn what_a_reader_left_behind_counts_until_it_is_back() {
        let (mut streams, credit) = (Streams::default(), Credit::default());
        let len = 4000 * MIB;
        read(&mut streams, &credit, len, 0..20 * MIB);
        let ahead = credit.unused.load(Ordering::Relaxed);
        assert!(ahead > 4 * MIB);
        let left_behind = |credit: &Credit| credit.left_behind.load(Ordering::Relaxed);
        for at in 0..Streams::PATIENCE {
            assert_eq!(left_behind(&credit), 0, "after {at} reads");
            streams.advance(&(1000 * MIB..1000 * MIB + 1), len, 0, &credit);
        }
        streams.advance(&(1000 * MIB..1000 * MIB + 1), len, 0, &credit);
        assert_eq!(left_behind(&credit), ahead);
        assert_eq!(credit.left(), 0);
        read(&mut streams, &credit, len, 20 * MIB..21 * MIB);
        assert_eq!(left_behind(&credit), 0);
        assert!(credit.left() > 0);
    }
}

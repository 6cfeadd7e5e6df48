//! Who reads an object from front to back, and how far ahead of them it is fetched.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::remote::blocks::BLOCK;

/// What one request asks for, where much is wanted.
pub(super) const SPAN: u64 = 8 << 20;

/// Requests that what is ahead of a reader is split into, at least: a server may give each connection little.
const IN_FLIGHT: u64 = 24;

/// What to fetch ahead of a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    pub(super) range: Range<u64>,
    /// What one request is to ask for, a power of two: requests end at its multiples.
    pub(super) span: u64,
}

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
    /// How far ahead of the last reader of a whole object was fetched: the next begins like that.
    whole: AtomicU64,
}

impl Credit {
    /// Bytes that may be ahead of readers from the start.
    const BASE: u64 = 32 << 20;
    /// The part of what is used that may be, as long as no reader has gone elsewhere.
    const SHARE: u64 = 2;
    /// The same once one has.
    const SHARE_OF_PARTS: u64 = 8;
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
        let share = match left_behind {
            0 => Self::SHARE,
            _ => Self::SHARE_OF_PARTS,
        };
        (Self::BASE + used / share).saturating_sub(unused)
    }

    /// Notes that the reader of `bytes` that were fetched ahead has gone elsewhere, or is back.
    fn leave(&self, bytes: u64) {
        if bytes > 0 {
            self.whole.store(0, Ordering::Relaxed);
        }
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
    /// Where it was first read.
    start: u64,
    /// The end of what was read.
    position: u64,
    /// How much was read.
    run: u64,
    /// How far ahead of the reader may be fetched.
    window: u64,
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
    ) -> Option<Ahead> {
        self.reads += 1;
        for stream in &mut self.known {
            stream.leave_unless_read(self.reads, credit);
        }
        let continued = self.known.iter().rposition(|stream| {
            let near = stream.position.saturating_sub(Self::SLACK)..=stream.position + Self::SLACK;
            near.contains(&range.start)
        });
        let mut stream = match continued {
            Some(position) => self.known.remove(position),
            None => {
                if self.known.len() == Self::MOST {
                    let mut oldest = self.known.remove(0);
                    oldest.leave_unless_read(u64::MAX, credit);
                }
                Stream {
                    start: range.start,
                    position: range.end,
                    run: 0,
                    window: 0,
                    ahead: range.end,
                    last: self.reads,
                    left_behind: None,
                }
            }
        };
        stream.last = self.reads;
        if let Some(bytes) = stream.left_behind.take() {
            credit.come_back(bytes);
        }
        stream.position = stream.position.max(range.end);
        stream.run += range.end - range.start;
        if continued.is_some() {
            let is_begun = stream.start < len / 32 && stream.run >= BLOCK;
            let known = if is_begun {
                credit.whole.load(Ordering::Relaxed)
            } else {
                0
            };
            stream.window = stream.window.max(stream.run).max(known);
        }
        if stream.position == len && stream.run >= len / 2 {
            credit.whole.store(stream.window, Ordering::Relaxed);
        }
        let ahead = stream.next(len, most, credit.left());
        self.known.push(stream);
        ahead
    }
}

impl Stream {
    /// What to fetch ahead now of an object of `len` bytes, at most `most` bytes ahead of the reader and `left` in all.
    fn next(&mut self, len: u64, most: u64, left: u64) -> Option<Ahead> {
        let under_way = self.ahead.saturating_sub(self.position);
        let window = self.window.min(most).min(under_way + left);
        let span = (window / IN_FLIGHT).clamp(BLOCK, SPAN);
        let span = 1 << span.ilog2();
        let from = self.ahead.max(self.position).div_ceil(BLOCK) * BLOCK;
        let end = (self.position + window).min(len);
        let to = if end == len { len } else { end / span * span };
        if to <= from {
            return None;
        }
        self.ahead = self.ahead.max(to);
        Some(Ahead {
            range: from..to,
            span,
        })
    }

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
            if let Some(Ahead { range, .. }) = streams.advance(&(at..to), len, 256 * MIB, credit) {
                for block in range.start / MIB..range.end.div_ceil(MIB) {
                    streams.fetched_ahead(block, credit);
                    fetched += MIB;
                }
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
                None
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
    fn who_reads_whole_objects_is_followed_far_from_the_next_one_on_until_parts_are_read() {
        let credit = Credit::default();
        let len = 512 * MIB;
        let begin = |at: u64| {
            let mut streams = Streams::default();
            let mut next =
                |at| streams.advance(&(at * MIB..(at + 1) * MIB), len, 256 * MIB, &credit);
            assert_eq!(next(at), None);
            next(at + 1).map(|ahead| (ahead.range.end, ahead.span))
        };
        let little = |at: u64| Some(((at + 4) * MIB, MIB));
        assert_eq!(begin(0), little(0), "nobody was seen yet");
        read(&mut Streams::default(), &credit, len, 0..len);
        assert_eq!(begin(0), Some((256 * MIB, SPAN)));
        assert_eq!(begin(300), little(300), "not its beginning");
        let mut streams = Streams::default();
        read(&mut streams, &credit, len, 100 * MIB..103 * MIB);
        for _ in 0..=Streams::PATIENCE {
            streams.advance(&(400 * MIB..401 * MIB), len, 256 * MIB, &credit);
        }
        assert_eq!(begin(0), little(0), "there is a reader of a part");
    }

    #[test]
    fn a_little_ahead_is_as_many_requests_as_much_is() {
        let (mut streams, credit) = (Streams::default(), Credit::default());
        credit.used.store(1 << 40, Ordering::Relaxed);
        let mut spans = Vec::new();
        for at in 0..1000 {
            let ahead = streams.advance(
                &(at * MIB..(at + 1) * MIB),
                10_000 * MIB,
                256 * MIB,
                &credit,
            );
            spans.extend(ahead.map(|ahead| ahead.span / MIB));
        }
        spans.dedup();
        assert_eq!(spans, [1, 2, 4, 8]);
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

//! Runs of bytes that follow each other: the one way to say where bytes come from, for tensors and
//! for files alike.

use std::borrow::Borrow;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

/// Where the bytes of a run come from.
pub trait Place: Clone {
    /// The same place, `bytes` further on.
    fn skip(&self, bytes: u64) -> Self;

    /// Whether `next` begins where the `len` bytes from this place end.
    fn is_continued_by(&self, len: u64, next: &Self) -> bool;
}

/// A run of bytes from one place.
#[derive(Debug, Clone)]
pub struct Segment<P> {
    /// Where it starts in the whole.
    pub start: u64,
    /// Its length in bytes; 0 only if the whole has no bytes.
    pub len: u64,
    pub place: P,
}

impl<P> Segment<P> {
    /// Where it ends in the whole.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The part of a segment that is inside of a range.
#[derive(Debug)]
pub struct Piece<'a, P> {
    /// Where it starts in the whole.
    pub start: u64,
    /// Its length in bytes, never 0.
    pub len: u64,
    /// Where it starts in the segment.
    pub skip: u64,
    pub segment: &'a Segment<P>,
}

/// Segments without holes between them. Cheap to clone.
///
/// Neighbours in one place are one segment. A whole without bytes keeps the place of its first
/// part, so that it is known where an empty tensor comes from.
#[derive(Debug, Clone)]
pub struct Runs<P>(List<P>);

/// Most tensors have one segment, which needs no allocation.
#[derive(Debug, Clone)]
enum List<P> {
    One(Segment<P>),
    Many(Arc<[Segment<P>]>),
}

/// Adds `len` bytes from `place` to the end of `segments`.
fn push<P: Place>(segments: &mut Vec<Segment<P>>, len: u64, place: P) {
    match segments.last_mut() {
        Some(_) if len == 0 => {}
        Some(last) if last.len == 0 => {
            *last = Segment {
                len,
                place,
                ..*last
            }
        }
        Some(last) if last.place.is_continued_by(last.len, &place) => last.len += len,
        last => {
            let start = last.map_or(0, |last| last.end());
            segments.push(Segment { start, len, place });
        }
    }
}

impl<P: Place> Runs<P> {
    /// `len` bytes from `place`.
    pub fn one(len: u64, place: P) -> Self {
        let start = 0;
        Runs(List::One(Segment { start, len, place }))
    }

    /// The bytes of `parts`, each a length and a place, one after the other.
    pub fn new(parts: impl IntoIterator<Item = (u64, P)>) -> Self {
        let mut segments = Vec::new();
        for (len, place) in parts {
            push(&mut segments, len, place);
        }
        Runs::from_segments(segments)
    }

    /// The bytes of `all`, one after the other.
    pub fn concat(all: impl IntoIterator<Item: Borrow<Self>>) -> Self {
        let mut segments = Vec::new();
        for runs in all {
            for segment in runs.borrow().with_empty() {
                push(&mut segments, segment.len, segment.place.clone());
            }
        }
        Runs::from_segments(segments)
    }

    fn from_segments(mut segments: Vec<Segment<P>>) -> Self {
        match segments.len() {
            1 => Runs(List::One(segments.remove(0))),
            _ => Runs(List::Many(segments.into())),
        }
    }

    /// The bytes of `range`, which must be inside. Without bytes, it keeps the place that the range
    /// points to.
    pub fn slice(&self, range: Range<u64>) -> Self {
        debug_assert!(range.start <= range.end && range.end <= self.len());
        if range.is_empty() {
            let at = self.with_empty().iter();
            let at = at.take_while(|segment| segment.start <= range.start).last();
            let place = at.map(|segment| segment.place.skip(range.start - segment.start));
            return Runs::new(place.map(|place| (0, place)));
        }
        Runs::new(self.within(range).map(|piece| (piece.len, piece.place())))
    }

    /// What of the segments is inside of `range`, in order.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Piece<'_, P>> {
        let segments = self.segments_from(range.start).iter();
        let segments = segments.take_while(move |segment| segment.start < range.end);
        segments.filter_map(move |segment| {
            let start = range.start.max(segment.start);
            let end = range.end.min(segment.end());
            (start < end).then(|| Piece {
                start,
                len: end - start,
                skip: start - segment.start,
                segment,
            })
        })
    }
}

impl<P> Runs<P> {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.with_empty().last().map_or(0, Segment::end)
    }

    /// The segments that have bytes, in order.
    pub fn segments(&self) -> &[Segment<P>] {
        match self.with_empty() {
            [Segment { len: 0, .. }] => &[],
            segments => segments,
        }
    }

    /// The segments from the one that holds byte `offset` on.
    pub fn segments_from(&self, offset: u64) -> &[Segment<P>] {
        let segments = self.segments();
        let first = segments.partition_point(|segment| segment.end() <= offset);
        &segments[first..]
    }

    /// Where all bytes come from, if that is one place.
    pub fn place(&self) -> Option<&P> {
        match self.with_empty() {
            [segment] => Some(&segment.place),
            _ => None,
        }
    }

    /// All segments, also one without bytes: where a whole without bytes comes from.
    pub fn with_empty(&self) -> &[Segment<P>] {
        match &self.0 {
            List::One(segment) => slice::from_ref(segment),
            List::Many(segments) => segments,
        }
    }
}

impl<P: Place> Piece<'_, P> {
    /// Where its bytes come from.
    pub fn place(&self) -> P {
        self.segment.place.skip(self.skip)
    }
}

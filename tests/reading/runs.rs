//! Runs of bytes, held against strings that are put together and cut.

use proptest::prelude::*;

use ckptfs::runs::{Place, Runs};

/// Bytes of one of several endless streams. Byte `i` of stream `s` is the pair of both.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stream {
    number: u8,
    offset: u64,
}

impl Place for Stream {
    fn skip(&self, bytes: u64) -> Self {
        Stream {
            offset: self.offset + bytes,
            ..self.clone()
        }
    }

    fn is_continued_by(&self, len: u64, next: &Self) -> bool {
        self.skip(len) == *next
    }
}

type Byte = (u8, u64);

fn bytes(len: u64, place: &Stream) -> impl Iterator<Item = Byte> {
    let number = place.number;
    (place.offset..place.offset + len).map(move |i| (number, i))
}

/// All bytes, by way of `segments`.
fn content(runs: &Runs<Stream>) -> Vec<Byte> {
    let segments = runs.segments().iter();
    segments
        .flat_map(|segment| bytes(segment.len, &segment.place))
        .collect()
}

/// Lists, some of whose neighbours continue each other, and some without bytes.
fn parts() -> impl Strategy<Value = Vec<(u64, Stream)>> {
    let part = (0u64..5, 0u8..2, 0u64..6);
    prop::collection::vec(part, 0..8).prop_map(|parts| {
        let place = |(len, number, offset)| (len, Stream { number, offset });
        parts.into_iter().map(place).collect()
    })
}

fn naive(parts: &[(u64, Stream)]) -> Vec<Byte> {
    let parts = parts.iter();
    parts.flat_map(|(len, place)| bytes(*len, place)).collect()
}

proptest! {
    #[test]
    fn runs_are_their_parts_without_holes_and_neighbours_in_one_place_are_one(parts in parts()) {
        let runs = Runs::new(parts.clone());
        let wanted = naive(&parts);
        prop_assert_eq!(content(&runs), wanted.clone());
        prop_assert_eq!(runs.len(), wanted.len() as u64);
        let mut end = 0;
        for segment in runs.segments() {
            prop_assert_eq!(segment.start, end);
            prop_assert!(segment.len > 0);
            end = segment.end();
        }
        for pair in runs.segments().windows(2) {
            prop_assert!(!pair[0].place.is_continued_by(pair[0].len, &pair[1].place));
        }
    }

    #[test]
    fn a_slice_is_the_slice_of_the_bytes(parts in parts(), from in 0usize..40, to in 0usize..40) {
        let runs = Runs::new(parts.clone());
        let wanted = naive(&parts);
        let (from, to) = (from.min(wanted.len()), to.min(wanted.len()));
        let (from, to) = (from.min(to), from.max(to));
        let slice = runs.slice(from as u64..to as u64);
        prop_assert_eq!(content(&slice), wanted[from..to].to_vec());
    }

    #[test]
    fn pieces_within_a_range_are_its_bytes_in_order(
        parts in parts(),
        from in 0u64..40,
        to in 0u64..40,
    ) {
        let runs = Runs::new(parts.clone());
        let wanted = naive(&parts);
        // A range may go beyond the end: what is not there is not in a piece.
        let (from, to) = (from.min(to), from.max(to));
        let mut found = Vec::new();
        for piece in runs.within(from..to) {
            prop_assert!(piece.len > 0);
            prop_assert_eq!(piece.start, from + found.len() as u64);
            prop_assert_eq!(piece.start, piece.segment.start + piece.skip);
            found.extend(bytes(piece.len, &piece.place()));
        }
        let inside = |at: u64| (at as usize).min(wanted.len());
        prop_assert_eq!(found, wanted[inside(from)..inside(to)].to_vec());
    }

    #[test]
    fn runs_put_together_are_their_bytes_one_after_the_other(
        all in prop::collection::vec(parts(), 0..4),
    ) {
        let runs: Vec<Runs<Stream>> = all.iter().map(|parts| Runs::new(parts.clone())).collect();
        let joined = Runs::concat(&runs);
        let wanted: Vec<Byte> = all.iter().flat_map(|parts| naive(parts)).collect();
        prop_assert_eq!(content(&joined), wanted);
    }

    #[test]
    fn slices_put_together_again_are_the_whole_in_as_many_segments(
        parts in parts(),
        cuts in prop::collection::vec(0u64..40, 0..5),
    ) {
        let runs = Runs::new(parts);
        let mut cuts: Vec<u64> = cuts.into_iter().map(|cut| cut.min(runs.len())).collect();
        cuts.extend([0, runs.len()]);
        cuts.sort();
        let slices: Vec<_> = cuts.windows(2).map(|cut| runs.slice(cut[0]..cut[1])).collect();
        let joined = Runs::concat(&slices);
        prop_assert_eq!(content(&joined), content(&runs));
        prop_assert_eq!(joined.segments().len(), runs.segments().len());
    }
}

#[test]
fn what_has_no_bytes_keeps_its_place() {
    let place = |offset| Stream { number: 0, offset };
    let empty = Runs::new([(0, place(7)), (0, place(9))]);
    assert_eq!(empty.len(), 0);
    assert!(empty.segments().is_empty());
    assert_eq!(empty.with_empty()[0].place, place(7));
    let cut = Runs::new([(4, place(10)), (4, place(20))]).slice(6..6);
    assert_eq!(cut.with_empty()[0].place, place(22));
    let filled = Runs::concat([&empty, &Runs::one(2, place(30))]);
    assert_eq!(content(&filled), [(0, 30), (0, 31)]);
}

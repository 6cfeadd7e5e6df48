//! Which bytes of which file come next.

use std::ops::Range;

use indexmap::IndexMap;

use crate::view::EntryId;

/// Bytes of a piece: as many as a request of the kernel asks for.
pub(super) const PIECE: u64 = 1 << 20;

/// The pieces of all files that are still to come.
#[derive(Debug)]
pub(super) struct Pieces {
    files: IndexMap<EntryId, File>,
    /// Files before this one, in their order, are done.
    first: usize,
    /// A file that somebody reads, and the piece from which on it is wanted.
    wanted: Option<(EntryId, usize)>,
}

#[derive(Debug)]
struct File {
    len: u64,
    /// Whether each piece is done, or somebody is at it.
    taken: Vec<bool>,
}

impl File {
    /// Takes the first piece from number `from` on that is to come, or from the beginning.
    fn take(&mut self, from: usize) -> Option<Range<u64>> {
        let from = from.min(self.taken.len());
        let (before, behind) = self.taken.split_at(from);
        let is_free = |taken: &bool| !taken;
        let behind = behind.iter().position(is_free).map(|at| from + at);
        let at = behind.or_else(|| before.iter().position(is_free))?;
        self.taken[at] = true;
        let start = at as u64 * PIECE;
        Some(start..self.len.min(start + PIECE))
    }
}

impl Pieces {
    /// All pieces of files with these lengths, in their order.
    pub(super) fn new(files: impl IntoIterator<Item = (EntryId, u64)>) -> Self {
        let file = |len: u64| File {
            len,
            taken: vec![false; len.div_ceil(PIECE) as usize],
        };
        Pieces {
            files: files.into_iter().map(|(id, len)| (id, file(len))).collect(),
            first: 0,
            wanted: None,
        }
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.len).sum()
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self) -> Option<(EntryId, Range<u64>)> {
        if let Some((id, from)) = self.wanted {
            if let Some(range) = self.files.get_mut(&id).and_then(|file| file.take(from)) {
                return Some((id, range));
            }
            self.wanted = None;
        }
        while let Some((&id, file)) = self.files.get_index_mut(self.first) {
            if let Some(range) = file.take(0) {
                return Some((id, range));
            }
            self.first += 1;
        }
        None
    }

    /// Somebody has read `range` of file `id`, and will read on: from `ahead` bytes behind it, the file
    /// is wanted first. A piece that was read to its end is not taken any more: who reads on from its
    /// beginning has all of it.
    pub(super) fn want(&mut self, id: EntryId, range: Range<u64>, ahead: u64) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        let end = range.end.min(file.len);
        let whole = if end == file.len {
            file.taken.len()
        } else {
            (end / PIECE) as usize
        };
        let from = ((range.start / PIECE) as usize).min(whole);
        file.taken[from..whole].fill(true);
        self.wanted = Some((id, (end.saturating_add(ahead) / PIECE) as usize));
    }

    /// Takes no further piece of file `id`.
    pub(super) fn leave_out(&mut self, id: EntryId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.taken.fill(true);
        }
    }

    /// Takes no further piece.
    pub(super) fn give_up(&mut self) {
        self.files.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &mut Pieces) -> Vec<(EntryId, Range<u64>)> {
        std::iter::from_fn(|| pieces.take()).collect()
    }

    const TWO_FILES: [(EntryId, u64); 3] = [(7, 2 * PIECE + 5), (3, 0), (4, PIECE)];

    #[test]
    fn every_byte_comes_once_in_order() {
        let mut pieces = Pieces::new(TWO_FILES);
        assert_eq!(pieces.bytes(), 3 * PIECE + 5);
        let expected = [
            (7, 0..PIECE),
            (7, PIECE..2 * PIECE),
            (7, 2 * PIECE..2 * PIECE + 5),
            (4, 0..PIECE),
        ];
        assert_eq!(all(&mut pieces), expected);
    }

    #[test]
    fn the_file_that_is_read_comes_first_from_where_it_is_read_on() {
        let mut pieces = Pieces::new([(1, 3 * PIECE), (2, 5 * PIECE)]);
        pieces.want(2, PIECE..PIECE + 100, PIECE);
        let order = all(&mut pieces);
        let starts: Vec<(EntryId, u64)> = order
            .iter()
            .map(|(id, range)| (*id, range.start / PIECE))
            .collect();
        let expected = [
            (2, 2),
            (2, 3),
            (2, 4),
            (2, 0),
            (2, 1),
            (1, 0),
            (1, 1),
            (1, 2),
        ];
        assert_eq!(starts, expected);
    }

    #[test]
    fn what_was_read_is_not_brought_again() {
        let mut pieces = Pieces::new([(1, 3 * PIECE + 1)]);
        pieces.want(1, 0..PIECE / 2, 0);
        pieces.want(1, PIECE / 2..2 * PIECE, 0);
        assert_eq!(pieces.take(), Some((1, 2 * PIECE..3 * PIECE)));
        pieces.want(1, 3 * PIECE..4 * PIECE, PIECE);
        assert_eq!(pieces.take(), None);
    }

    #[test]
    fn of_what_is_left_out_nothing_comes() {
        let mut pieces = Pieces::new(TWO_FILES);
        pieces.take();
        pieces.leave_out(7);
        assert_eq!(all(&mut pieces), [(4, 0..PIECE)]);
        let mut pieces = Pieces::new(TWO_FILES);
        pieces.want(9, 0..1, 0);
        pieces.give_up();
        pieces.want(7, 0..1, 0);
        assert_eq!(pieces.take(), None);
    }
}

//! Cutting files into pieces of work, and handing the pieces out to threads.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::catalog::{Extent, NodeId};
use crate::error::Result;
use crate::materialize::new_file::NewFile;
use crate::materialize::output::Target;
use crate::materialize::sums::Sums;
use crate::runs::Segment;
use crate::view::EntryId;

/// Bytes after which a piece takes no further segment.
const PIECE_BYTES: u64 = 32 << 20;

/// Segments of one file that are written by one thread.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) file: &'a NewFile<'a>,
    /// Each with its number in the file.
    pub(super) segments: Vec<(usize, &'a Segment<Extent>)>,
    /// Where the pieces of the file go to. Each lets go of it when it is written.
    pub(super) target: Arc<Target>,
}

impl Piece<'_> {
    /// Lets go of the file; the last of its pieces forces it to the disk, and returns its checksums, if
    /// none has failed.
    ///
    /// # Errors
    /// If something of the file did not get there.
    pub(super) fn finish(self) -> Result<Option<Sums>> {
        let target = Arc::into_inner(self.target).filter(|target| !target.has_failed());
        target.map(|target| target.sync()).transpose()
    }
}

/// The pieces of `file`, in file order, at least one. Several outputs of a node are in one piece
/// wherever they lie in the file, so that what computing the first gives for the others is still
/// at hand. `whole` has one piece of everything, in file order.
fn pieces_of_file<'a>(file: &'a NewFile<'a>, target: Target, whole: bool) -> VecDeque<Piece<'a>> {
    let target = Arc::new(target);
    let empty = || Piece {
        file,
        segments: Vec::new(),
        target: target.clone(),
    };
    let mut pieces = VecDeque::from([empty()]);
    let mut piece_of_node: HashMap<NodeId, usize> = HashMap::new();
    let mut filled = 0;
    for (number, segment) in file.content.segments().iter().enumerate() {
        if whole {
            pieces[0].segments.push((number, segment));
            continue;
        }
        let node = segment.place.node();
        let node = node.filter(|node| node.kernel.outputs() > 1);
        if let Some(node) = node
            && let Some(piece) = piece_of_node.get(&node.id())
        {
            pieces[*piece].segments.push((number, segment));
            continue;
        }
        if filled >= PIECE_BYTES {
            filled = 0;
            pieces.push_back(empty());
        }
        let last = pieces.len() - 1;
        pieces[last].segments.push((number, segment));
        filled += segment.len;
        if let Some(node) = node {
            piece_of_node.insert(node.id(), last);
        }
    }
    pieces
}

/// Pieces that are still to be written. Threads get pieces of different files for as long as
/// there are as many: the kernel lets only one at a time write to a file.
#[derive(Debug, Default)]
pub(super) struct Queue<'a> {
    files: Mutex<Vec<Waiting<'a>>>,
    /// Where files are among these.
    numbers: HashMap<EntryId, usize>,
}

/// What is left of a file.
#[derive(Debug)]
struct Waiting<'a> {
    pieces: VecDeque<Piece<'a>>,
    /// Threads that are at a piece of it.
    threads: usize,
    /// Whether a thread ever was.
    begun: bool,
}

impl<'a> Queue<'a> {
    /// Has the pieces of `file` written, below `directory`; with `sha256` in one, since that takes
    /// the bytes in their order.
    pub(super) fn add(&mut self, file: &'a NewFile<'a>, directory: &Path, sha256: bool) {
        let segments = file.content.segments().len();
        let target = Target::new(directory.join(&file.path), segments, sha256);
        let files = self.files.get_mut();
        self.numbers.insert(file.entry, files.len());
        files.push(Waiting {
            pieces: pieces_of_file(file, target, sha256),
            threads: 0,
            begun: false,
        });
    }

    /// Pieces to be written.
    pub(super) fn len(&self) -> usize {
        let files = self.files.lock();
        files.iter().map(|file| file.pieces.len()).sum()
    }

    /// Has only those files completed that are begun and have not failed.
    pub(super) fn begin_no_more(&self) {
        for file in &mut *self.files.lock() {
            let failed = |piece: &Piece| piece.target.has_failed();
            if !file.begun || file.pieces.front().is_some_and(failed) {
                file.pieces.clear();
            }
        }
    }

    /// A piece for a thread whose last one was of the file `at`, which becomes the file of the
    /// new one: the first of those `wanted` that is left; else a file that nobody else is at,
    /// preferably the same again.
    pub(super) fn take(&self, at: &mut Option<usize>, wanted: &[EntryId]) -> Option<Piece<'a>> {
        let mut files = self.files.lock();
        if let Some(last) = *at {
            files[last].threads -= 1;
        }
        let is_left = |number: &usize| !files[*number].pieces.is_empty();
        let wanted = wanted.iter().filter_map(|entry| self.numbers.get(entry));
        let best = wanted.copied().find(&is_left).or_else(|| {
            let left = (0..files.len()).filter(&is_left);
            left.min_by_key(|number| (files[*number].threads, Some(*number) != *at))
        });
        *at = best;
        let file = &mut files[best?];
        file.threads += 1;
        file.begun = true;
        file.pieces.pop_front()
    }
}

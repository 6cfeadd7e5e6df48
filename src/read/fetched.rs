//! Stored bytes that were read before a reader asks for them.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Result;
use crate::read::buffers::Buffer;
use crate::read::stored::Stored;
use crate::shown::Show;
use crate::source::Blob;

/// A range of a source that is read ahead, or is about to be.
pub(super) struct Piece {
    blob: Arc<dyn Blob>,
    range: Range<u64>,
    planned: Instant,
    /// `None` if it cannot be read: whoever asks for it tries anew, and is told why.
    bytes: OnceLock<Option<Buffer>>,
}

impl Piece {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Its bytes, read now if they were not yet. Two who ask at once read them once.
    fn bytes(&self, stored: &Stored) -> Option<&[u8]> {
        let read = || stored.read(&*self.blob, self.range.clone()).ok();
        self.bytes.get_or_init(read).as_deref()
    }

    /// Reads its bytes.
    pub(super) fn fetch(&self, stored: &Stored) {
        let _ = self.bytes(stored);
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.range, self.blob.location().shown())
    }
}

/// The pieces that wait for their readers, bounded in bytes.
#[derive(Debug)]
pub(super) struct Fetched {
    capacity: u64,
    pieces: Mutex<VecDeque<Arc<Piece>>>,
}

impl Fetched {
    /// What is not asked for in this time makes room for others.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Room for `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Self {
        Fetched {
            capacity,
            pieces: Mutex::default(),
        }
    }

    /// Bytes of all pieces.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.lock().iter().map(|piece| piece.len()).sum()
    }

    /// Makes a piece of `range` of `blob`, to be [fetched](Piece::fetch); `None` if there is no room
    /// for it.
    pub(super) fn plan(&self, blob: &Arc<dyn Blob>, range: Range<u64>) -> Option<Arc<Piece>> {
        let mut pieces = self.pieces.lock();
        let mut held: u64 = pieces.iter().map(|piece| piece.len()).sum();
        while held + (range.end - range.start) > self.capacity {
            let oldest = pieces.pop_front_if(|oldest| oldest.planned.elapsed() > Self::PATIENCE)?;
            held -= oldest.len();
        }
        let piece = Arc::new(Piece {
            blob: blob.clone(),
            range,
            planned: Instant::now(),
            bytes: OnceLock::new(),
        });
        pieces.push_back(piece.clone());
        Some(piece)
    }

    /// The first of the `len` bytes of `blob` from `offset`, as many as a piece holds; `None` if none
    /// holds the first one.
    ///
    /// # Errors
    /// If the source is not what it was when the view was planned, as
    /// [`Blob::read_at`] would say.
    pub(super) fn get(
        &self,
        blob: &Arc<dyn Blob>,
        offset: u64,
        len: usize,
        stored: &Stored,
    ) -> Result<Option<Lent>> {
        let holds =
            |piece: &&Arc<Piece>| Arc::ptr_eq(&piece.blob, blob) && piece.range.contains(&offset);
        let Some(piece) = self.pieces.lock().iter().find(holds).cloned() else {
            return Ok(None);
        };
        let Some(held) = piece.bytes(stored).map(<[u8]>::len) else {
            self.forget(&piece);
            return Ok(None);
        };
        blob.check()?;
        let from = (offset - piece.range.start) as usize;
        let range = from..held.min(from + len);
        Ok(Some(Lent { piece, range }))
    }

    /// Notes that a reader has had what was lent. A piece that was read to its end is not kept.
    pub(super) fn served(&self, lent: Lent) {
        if lent.range.end as u64 == lent.piece.len() {
            self.forget(&lent.piece);
        }
    }

    fn forget(&self, piece: &Arc<Piece>) {
        self.pieces
            .lock()
            .retain(|other| !Arc::ptr_eq(other, piece));
    }
}

/// Bytes of a piece.
pub(super) struct Lent {
    piece: Arc<Piece>,
    range: Range<usize>,
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = self.piece.bytes.get().and_then(Option::as_deref);
        &bytes.expect("what is lent was read")[self.range.clone()]
    }
}

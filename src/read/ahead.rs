//! Working ahead of those who read a file in order, on threads of its own: computing the next tiles
//! and the facts of the next tensor, reading what is stored.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;

use crate::catalog::{Node, NodeId};
use crate::read::fetched::Piece;
use crate::read::reader::{Reader, TileRef};
use crate::view::EntryId;

/// Computes tiles of a view, and reads what it stores, before sequential readers ask for them.
///
/// It only ever fills the reader's caches: whether it runs, and how fast, changes no byte. What
/// cannot be computed or read is left for the reader who asks for it, who gets the error.
#[derive(Debug)]
pub struct ReadAhead {
    reader: Arc<Reader>,
    /// Bytes of a file to be ahead of its reader.
    window: u64,
    streams: Mutex<Streams>,
    /// `None` only while this is dropped.
    queue: Option<Sender<Job>>,
    /// Likewise.
    surveys: Option<Sender<Arc<Node>>>,
    /// The node that was last sent there.
    last_survey: AtomicU64,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
enum Job {
    /// A tile, for the reader who was last seen at that place of the file.
    Compute(TileRef, Arc<AtomicU64>),
    Fetch(Arc<Piece>),
}

/// What to do ahead of a sequential reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Compute tiles while sources are read from something slower than memory, or tiles take long. Else
    /// the reader of a tile computes it, and then has it in the caches of its processor.
    SlowTiles,
    /// Compute tiles: nobody asks for bytes before the reader does.
    Tiles,
    /// Also read what is stored, as long as no other reader asks for anything between.
    Everything,
}

impl ReadAhead {
    /// The part of the cache that may be taken ahead of one reader.
    const CACHE_SHARE: u64 = 8;

    /// Starts `threads` threads that compute `window` bytes ahead of every sequential reader, and
    /// further while sources are slow or tiles take long; at most an eighth of the reader's cache.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(reader: Arc<Reader>, window: u64, threads: usize) -> io::Result<Self> {
        /// What waits. What does not fit is done when it is asked for.
        const QUEUE: usize = 256;
        let (queue, jobs) = crossbeam_channel::bounded(QUEUE);
        // A survey has threads of its own: one at a time.
        let (surveys, nodes) = crossbeam_channel::bounded(1);
        let mut this = ReadAhead {
            window,
            reader,
            streams: Mutex::default(),
            queue: Some(queue),
            surveys: Some(surveys),
            last_survey: AtomicU64::new(NodeId::MAX),
            workers: Vec::new(),
        };
        let surveyor = thread::Builder::new().name("surveys-ahead".to_owned());
        let reader = this.reader.clone();
        this.workers
            .push(surveyor.spawn(move || survey(&reader, &nodes))?);
        for number in 0..threads {
            let (reader, jobs) = (this.reader.clone(), jobs.clone());
            let worker = thread::Builder::new().name(format!("ahead-{number}"));
            this.workers
                .push(worker.spawn(move || work(&reader, &jobs))?);
        }
        Ok(this)
    }

    /// Tells that `range` of file `id` is about to be read, and what to do ahead of whoever reads
    /// it.
    pub fn note(&self, id: EntryId, range: Range<u64>, what: Ahead) {
        let windows = self.windows(what);
        let from = range.start;
        let Some(ahead) = self.streams.lock().advance(id, range, windows) else {
            return;
        };
        let (Some(queue), Some(surveys)) = (&self.queue, &self.surveys) else {
            return;
        };
        if let Some(node) = self.reader.next_surveyed(id, from)
            && self.last_survey.swap(node.id(), Ordering::Relaxed) != node.id()
        {
            // One that does not fit is made when its tensor is read.
            let _ = surveys.try_send(node);
        }
        let pieces = self.reader.stored_in(id, ahead.stored).into_iter();
        let tiles = self.reader.tiles_in(id, ahead.tiles).into_iter();
        for job in pieces
            .map(Job::Fetch)
            .chain(tiles.map(|tile| Job::Compute(tile, ahead.position.clone())))
        {
            if let Err(TrySendError::Full(_)) = queue.try_send(job) {
                break;
            }
        }
    }

    fn windows(&self, what: Ahead) -> Windows {
        /// What a disk gives takes longer than a request.
        const TIMES_FURTHER: u64 = 4;
        /// Two pieces: one that is read while another is given to the reader. More would have left
        /// the caches of the processor before they are.
        const STORED: u64 = 2 * Reader::PIECE;
        /// What a disk gives past the page cache nobody else reads ahead, and it gives more if it is
        /// asked for several pieces at once.
        const STORED_ON_DISK: u64 = 8 * Reader::PIECE;
        let slow = self.reader.waits_for_sources();
        let tiles = match what {
            // The kernel asks for some MiB at once, that is a request each for a few processors.
            _ if slow || self.reader.waits_for_computing() => {
                self.window.saturating_mul(TIMES_FURTHER)
            }
            Ahead::SlowTiles => 0,
            Ahead::Tiles | Ahead::Everything => self.window,
        };
        let stored = match what {
            _ if slow && self.reader.has_direct_sources() => STORED_ON_DISK,
            Ahead::Everything => self.window.min(STORED),
            Ahead::SlowTiles | Ahead::Tiles => 0,
        };
        // More would push out what is ahead of others before they come to it.
        let most = self.reader.cache_bytes() as u64 / Self::CACHE_SHARE;
        Windows {
            tiles: tiles.min(most),
            stored,
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        drop(self.queue.take());
        drop(self.surveys.take());
        // One that waits for another machine ends once it has its answer, and does no harm meanwhile.
        if self.reader.reads_remote() {
            return;
        }
        for worker in mem::take(&mut self.workers) {
            // A worker that panicked has said so itself.
            let _ = worker.join();
        }
    }
}

fn work(reader: &Reader, jobs: &Receiver<Job>) {
    for job in jobs {
        // A panic is for whoever asks for the bytes, who meets it again.
        let _ = catch_unwind(AssertUnwindSafe(|| match job {
            // Who has come to it has it, and may have read it to its end by now.
            Job::Compute(tile, position) if position.load(Ordering::Relaxed) >= tile.end => {}
            Job::Compute(tile, _) => reader.prepare(&tile),
            Job::Fetch(piece) => reader.fetch(&piece),
        }));
    }
}

fn survey(reader: &Reader, nodes: &Receiver<Arc<Node>>) {
    for node in nodes {
        reader.prepare_facts(&node);
    }
}

/// Where readers are in their files.
#[derive(Debug, Default)]
struct Streams {
    /// The most recently used last.
    known: Vec<Stream>,
}

/// How far ahead of a reader what is done.
#[derive(Debug, Clone, Copy)]
struct Windows {
    tiles: u64,
    stored: u64,
}

/// Ranges of a file.
struct Ranges {
    position: Arc<AtomicU64>,
    tiles: Range<u64>,
    stored: Range<u64>,
}

#[derive(Debug)]
struct Stream {
    file: EntryId,
    /// The end of what was read.
    position: Arc<AtomicU64>,
    /// How much was read.
    run: u64,
    /// The end of what was computed ahead; 0 before the reader was seen to go on.
    tiles: u64,
    /// The end of what was read ahead, likewise.
    stored: u64,
}

impl Streams {
    /// Streams that are followed at once; a reader beyond them is not read ahead for.
    const MOST: usize = 64;
    /// How far from where a stream ended the next read of it may begin: the kernel asks for
    /// several pieces at once, and they do not arrive in order.
    const SLACK: u64 = 4 << 20;

    /// Notes a read of `range` of `file`; if it goes on where another ended, gives what to compute
    /// ahead now, which may be nothing.
    fn advance(&mut self, file: EntryId, range: Range<u64>, windows: Windows) -> Option<Ranges> {
        let continued = self.known.iter().rposition(|stream| {
            let next = stream.position.load(Ordering::Relaxed);
            let near = next.saturating_sub(Self::SLACK)..=next.saturating_add(Self::SLACK);
            stream.file == file && near.contains(&range.start)
        });
        let Some(position) = continued else {
            if self.known.len() == Self::MOST {
                self.known.remove(0);
            }
            self.known.push(Stream {
                file,
                position: Arc::new(range.end.into()),
                run: range.end - range.start,
                tiles: 0,
                stored: 0,
            });
            return None;
        };
        // Several readers at once keep the processors busy by themselves.
        let is_alone = position + 1 == self.known.len();
        let mut stream = self.known.remove(position);
        let before = stream.position.fetch_max(range.end, Ordering::Relaxed);
        let next = before.max(range.end);
        stream.run += range.end - range.start;
        let extend = |done: &mut u64, window: u64| {
            let from = next.max(*done);
            *done = from.max(next + window);
            from..*done
        };
        let stored = if is_alone { windows.stored } else { 0 }.min(stream.run);
        let ranges = Ranges {
            position: stream.position.clone(),
            tiles: extend(&mut stream.tiles, windows.tiles),
            stored: extend(&mut stream.stored, stored),
        };
        self.known.push(stream);
        Some(ranges)
    }
}

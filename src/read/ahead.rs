//! Computing ahead of those who read a file in order, on threads of its own: the next tiles, and the
//! facts of the next tensor.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;

use crate::catalog::{Node, NodeId};
use crate::read::reader::{Reader, TileRef};
use crate::view::EntryId;

/// Computes tiles of a view before sequential readers ask for them.
///
/// It only ever fills the reader's cache: whether it runs, and how fast, changes no byte. A tile
/// that cannot be computed is left for the reader who asks for it, who gets the error.
#[derive(Debug)]
pub struct ReadAhead {
    reader: Arc<Reader>,
    /// Bytes of a file to be ahead of its reader.
    window: u64,
    when: When,
    streams: Mutex<Streams>,
    /// `None` only while this is dropped.
    queue: Option<Sender<TileRef>>,
    /// Likewise.
    surveys: Option<Sender<Arc<Node>>>,
    /// The node that was last sent there.
    last_survey: AtomicU64,
    workers: Vec<JoinHandle<()>>,
}

/// When to compute ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Of every sequential reader.
    Always,
    /// Only while sources are read from something slower than memory. Else whoever asks for a
    /// tile computes it, and has it in the caches of its processor.
    SourcesAreSlow,
}

impl ReadAhead {
    /// The part of the cache that may be taken ahead of one reader.
    const CACHE_SHARE: u64 = 8;

    /// Starts `threads` threads that compute `window` bytes ahead of every sequential reader, or
    /// an eighth of the reader's cache if that is less.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(reader: Arc<Reader>, window: u64, threads: usize, when: When) -> io::Result<Self> {
        /// Tiles that wait. What does not fit is computed when it is asked for.
        const QUEUE: usize = 256;
        let (queue, tiles) = crossbeam_channel::bounded(QUEUE);
        // A survey has threads of its own: one at a time.
        let (surveys, nodes) = crossbeam_channel::bounded(1);
        let mut this = ReadAhead {
            // More would push out what is ahead of others before they come to it.
            window: window.min(reader.cache_bytes() as u64 / Self::CACHE_SHARE),
            reader,
            when,
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
            let (reader, tiles) = (this.reader.clone(), tiles.clone());
            let worker = thread::Builder::new().name(format!("ahead-{number}"));
            this.workers
                .push(worker.spawn(move || work(&reader, &tiles))?);
        }
        Ok(this)
    }

    /// Tells that `range` of file `id` is about to be read.
    pub fn note(&self, id: EntryId, range: Range<u64>) {
        let wanted = self.when == When::Always || self.reader.waits_for_sources();
        let window = if wanted { self.window } else { 0 };
        let from = range.start;
        let Some(ahead) = self.streams.lock().advance(id, range, window) else {
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
        for tile in self.reader.tiles_in(id, ahead) {
            if let Err(TrySendError::Full(_)) = queue.try_send(tile) {
                break;
            }
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        drop(self.queue.take());
        drop(self.surveys.take());
        for worker in mem::take(&mut self.workers) {
            // A worker that panicked has said so itself.
            let _ = worker.join();
        }
    }
}

fn work(reader: &Reader, tiles: &Receiver<TileRef>) {
    for tile in tiles {
        reader.prepare(&tile);
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

#[derive(Debug)]
struct Stream {
    file: EntryId,
    /// The end of what was read.
    next: u64,
    /// The end of what was computed ahead; 0 before the reader was seen to go on.
    ahead: u64,
}

impl Streams {
    /// Streams that are followed at once; a reader beyond them is not read ahead for.
    const MOST: usize = 64;
    /// How far from where a stream ended the next read of it may begin: the kernel asks for
    /// several pieces at once, and they do not arrive in order.
    const SLACK: u64 = 4 << 20;

    /// Notes a read of `range` of `file`; if it goes on where another ended, gives what to compute
    /// ahead now, which may be nothing.
    fn advance(&mut self, file: EntryId, range: Range<u64>, window: u64) -> Option<Range<u64>> {
        let continued = self.known.iter().rposition(|stream| {
            stream.file == file
                && (stream.next.saturating_sub(Self::SLACK)..=stream.next + Self::SLACK)
                    .contains(&range.start)
        });
        let Some(position) = continued else {
            if self.known.len() == Self::MOST {
                self.known.remove(0);
            }
            self.known.push(Stream {
                file,
                next: range.end,
                ahead: 0,
            });
            return None;
        };
        let mut stream = self.known.remove(position);
        stream.next = stream.next.max(range.end);
        let from = stream.ahead.max(stream.next);
        let to = stream.next + window;
        stream.ahead = to.max(from);
        self.known.push(stream);
        Some(from..to.max(from))
    }
}

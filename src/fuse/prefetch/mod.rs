//! Bringing the files of a mount into the page cache before anybody reads them. The kernel is not
//! asked to read: it is handed the bytes, so that nothing is open that would keep the mount busy.

mod pages;
mod pieces;
mod room;
#[cfg(test)]
mod tests;

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rustix::fs::Advice;

use crate::error::{Error, Result, Spelling};
use crate::fuse::server::{inode, local_source};
use crate::read::Reader;
use crate::shown::Show;
use crate::source::LocalFile;
use crate::stats::{PrefetchState, PrefetchStats};
use crate::text::counted;
use crate::view::EntryId;

use pieces::Pieces;

pub(super) use pages::{MountPages, Pages};
pub(super) use room::room;

/// What is brought into the page cache, and how far that is.
#[derive(Debug)]
pub(super) struct Prefetch {
    reader: Arc<Reader>,
    pieces: Mutex<Pieces>,
    state: Mutex<PrefetchState>,
    /// Whether the kernel reads whole files of sources by itself.
    passthrough: AtomicBool,
    /// Of all files, and those that are done.
    bytes: u64,
    done: AtomicU64,
    /// How the log writes settings of the request.
    spelling: Spelling,
}

impl Prefetch {
    /// All files of the view of `reader`.
    pub(super) fn new(reader: Arc<Reader>, spelling: Spelling) -> Self {
        let view = reader.view();
        let files = (0..view.len()).filter_map(|id| Some((id, view.file(id)?.len())));
        let pieces = Pieces::new(files);
        Prefetch {
            bytes: pieces.bytes(),
            pieces: Mutex::new(pieces),
            state: Mutex::new(PrefetchState::Reading),
            passthrough: AtomicBool::new(false),
            done: AtomicU64::new(0),
            reader,
            spelling,
        }
    }

    /// Says whether the kernel reads whole files of sources by itself: their pages are then those of
    /// the sources.
    pub(super) fn set_passthrough(&self, passthrough: bool) {
        self.passthrough.store(passthrough, Ordering::Relaxed);
    }

    /// Notes that somebody reads `range` of file `id`: what comes behind it is wanted first, from
    /// `ahead` bytes further on, which the kernel asks for by itself.
    pub(super) fn note_read(&self, id: EntryId, range: Range<u64>, ahead: u64) {
        self.pieces.lock().want(id, range, ahead);
    }

    /// How far it is.
    pub(super) fn stats(&self) -> PrefetchStats {
        PrefetchStats {
            state: *self.state.lock(),
            bytes: self.bytes,
            bytes_done: self.done.load(Ordering::Relaxed).min(self.bytes),
        }
    }

    /// Ends it, if nothing has ended it before.
    fn end(&self, state: PrefetchState) {
        let mut now = self.state.lock();
        if *now == PrefetchState::Reading {
            *now = state;
        }
        self.pieces.lock().give_up();
    }

    /// Brings piece after piece into `pages`, until there are no more or no room.
    fn work(&self, pages: &dyn Pages) {
        let mut scratch = Vec::new();
        let mut known = None;
        loop {
            let Some((id, range)) = self.pieces.lock().take() else {
                return;
            };
            if !pages.have_room(self.done.load(Ordering::Relaxed)) {
                return self.end(PrefetchState::NoMemory);
            }
            let len = range.end - range.start;
            if let Err(error) = self.bring(id, range, pages, &mut known, &mut scratch) {
                // Who reads it is told again.
                let path = self.reader.view().path(id);
                let error = error.logged(self.spelling);
                log::warn!("prefetch: {} is left out: {error}", path.shown());
                self.pieces.lock().leave_out(id);
            }
            self.done.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// Brings bytes `range` of file `id` into `pages`. `known` is the file that the kernel was last
    /// seen to know.
    fn bring(
        &self,
        id: EntryId,
        range: Range<u64>,
        pages: &dyn Pages,
        known: &mut Option<EntryId>,
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let view = self.reader.view();
        let source = view.file(id).and_then(local_source);
        if let Some(source) = source.filter(|_| self.passthrough.load(Ordering::Relaxed)) {
            return read_ahead(source, range);
        }
        if *known != Some(id) {
            pages.look_up(&view.path(id), inode(id))?;
            *known = Some(id);
        }
        let len = (range.end - range.start) as usize;
        let store = |bytes: &[u8]| pages.store(inode(id), range.start, bytes);
        let stored = self
            .reader
            .read_with(id, range.start, len, scratch, store)?;
        if let Err(error) = stored {
            // The mount is about to end.
            log::info!("prefetch: the kernel takes no more: {error}");
            self.end(PrefetchState::Stopped);
        }
        Ok(())
    }
}

/// Asks the kernel to read bytes `range` of `source` into the page cache.
fn read_ahead(source: &LocalFile, range: Range<u64>) -> Result<()> {
    let file = source.handle()?;
    let len = NonZeroU64::new(range.end - range.start);
    let advised = rustix::fs::fadvise(&*file, range.start, len, Advice::WillNeed);
    advised.map_err(|e| Error::io("read ahead", source.path(), e.into()))
}

/// The threads of a [`Prefetch`]; dropping it stops them.
#[derive(Debug)]
pub(super) struct Prefetching {
    prefetch: Arc<Prefetch>,
    threads: Vec<JoinHandle<()>>,
}

impl Prefetching {
    /// Starts `threads` threads that work on `prefetch`, and fill `pages`.
    pub(super) fn start(
        prefetch: Arc<Prefetch>,
        threads: NonZeroUsize,
        pages: impl Pages + 'static,
    ) -> io::Result<Self> {
        let mut running = Prefetching {
            prefetch: prefetch.clone(),
            threads: Vec::new(),
        };
        let pages = Arc::new(pages);
        let working = Arc::new(AtomicUsize::new(threads.get()));
        for _ in 0..threads.get() {
            let (prefetch, pages) = (prefetch.clone(), pages.clone());
            let working = working.clone();
            let work = move || {
                // At the priority of requests: a reader may wait for a tile that is computed here.
                prefetch.work(&*pages);
                if working.fetch_sub(1, Ordering::AcqRel) == 1 {
                    prefetch.end(PrefetchState::Complete);
                    prefetch.log_end();
                }
            };
            let thread = thread::Builder::new().name("prefetch".to_owned());
            running.threads.push(thread.spawn(work)?);
        }
        Ok(running)
    }
}

impl Prefetch {
    fn log_end(&self) {
        let PrefetchStats {
            state,
            bytes,
            bytes_done,
        } = self.stats();
        let (done, bytes) = (counted(bytes_done as usize, "byte"), bytes);
        match state {
            PrefetchState::Complete => log::info!("prefetch: {done} are in the page cache"),
            PrefetchState::NoMemory => log::warn!(
                "prefetch: stopped after {done} of {bytes}, since more would push others out of memory"
            ),
            PrefetchState::Stopped | PrefetchState::Reading => {
                log::info!("prefetch: stopped after {done} of {bytes}");
            }
        }
    }
}

impl Drop for Prefetching {
    fn drop(&mut self) {
        self.prefetch.end(PrefetchState::Stopped);
        for thread in std::mem::take(&mut self.threads) {
            // Whatever it had to say, it has logged.
            let _ = thread.join();
        }
    }
}

//! Files of a view that are complete in a directory, while a job writes the others there: which they
//! are, who waits for them, and whether readers leave the job time.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::catalog::Extents;
use crate::error::{Error, Result};
use crate::fuse::options::{PersistOpen, PersistOptions};
use crate::fuse::server::attributes::{Inode, inode};
use crate::fuse::server::passthrough::local_source;
use crate::materialize::Watcher;
use crate::source::{Blob, LocalFile};
use crate::view::{EntryId, View};

/// The process that asks, by its number; 0 if it is not known.
pub(in crate::fuse) type Process = u32;

/// How long an opening waits for its file, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Files below this size are not worth waiting for.
const WORTH_WAITING: u64 = 1 << 20;
/// Openings that wait at a time, each in a thread.
const MOST_WAITING: usize = 256;
/// Processes that are remembered.
const MOST_PROCESSES: usize = 4096;
/// A reader that reads again within this time is still reading.
const PAUSE: Duration = Duration::from_millis(2);

const COMPUTED_AGAIN: &str = "the mount computes this file instead of reading it there";

/// The files of a view that were written so far.
#[derive(Debug)]
pub(in crate::fuse) struct Persisted {
    options: PersistOptions,
    view: Arc<View>,
    complete: RwLock<HashMap<EntryId, Arc<LocalFile>>>,
    openings: Mutex<Openings>,
    /// A file was completed, or no more will be.
    changed: Condvar,
    /// How many times each file is open to be read by requests.
    opens: Mutex<HashMap<EntryId, usize>>,
    /// Whether the kernel reads complete files by itself.
    is_native: AtomicBool,
    cached: Mutex<Cached>,
    /// There is a file whose pages are not needed, or there will be none.
    cached_changed: Condvar,
    /// Requests to read that are being answered.
    reading: AtomicUsize,
    /// When the last of them was answered, in nanoseconds after `began`.
    last_read: AtomicU64,
    began: Instant,
}

#[derive(Debug, Default)]
struct Openings {
    processes: HashMap<Process, Habits>,
    /// How many wait for each file.
    waiting: HashMap<EntryId, usize>,
    /// Whether no more files will be completed.
    ended: bool,
}

/// Files whose pages in the page cache of the mount are no longer needed: the kernel reads these files
/// from the directory.
#[derive(Debug, Default)]
struct Cached {
    unneeded: Vec<EntryId>,
    ended: bool,
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Habits {
    reads_tensors: bool,
    /// Files that it has opened when they were not complete.
    opened: HashSet<EntryId>,
}

/// An opening that is to wait.
#[derive(Debug)]
pub(in crate::fuse) struct Wait {
    persisted: Arc<Persisted>,
    entry: EntryId,
}

impl Persisted {
    pub(in crate::fuse) fn new(options: PersistOptions, view: Arc<View>) -> Self {
        Persisted {
            options,
            view,
            complete: RwLock::default(),
            openings: Mutex::default(),
            changed: Condvar::new(),
            opens: Mutex::default(),
            is_native: AtomicBool::new(false),
            cached: Mutex::default(),
            cached_changed: Condvar::new(),
            reading: AtomicUsize::new(0),
            last_read: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Where files are written to.
    pub(in crate::fuse) fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// Bytes that may be written in a second.
    pub(in crate::fuse) fn rate(&self) -> Option<NonZeroU64> {
        self.options.rate
    }

    /// Files that are complete.
    pub(in crate::fuse) fn files(&self) -> usize {
        self.complete.read().len()
    }

    /// File `entry`, if it is complete.
    pub(super) fn file(&self, entry: EntryId) -> Option<Arc<LocalFile>> {
        self.complete.read().get(&entry).cloned()
    }

    /// Reads file `entry`, if it is complete and can be read.
    pub(super) fn read(
        &self,
        entry: EntryId,
        offset: u64,
        size: usize,
        into: &mut Vec<u8>,
    ) -> bool {
        let Some(file) = self.file(entry) else {
            return false;
        };
        let len = file.len().saturating_sub(offset).min(size as u64) as usize;
        into.resize(len, 0);
        match file.read_at(into, offset) {
            Ok(()) => true,
            Err(error) => {
                self.lost(entry, &error);
                false
            }
        }
    }

    /// Whether the kernel is to read file `entry`, which holds `content`, from the directory. A file
    /// that is all of a source is read from the source.
    pub(super) fn is_native(&self, entry: EntryId, content: &Extents) -> bool {
        if !self.is_native.load(Ordering::Relaxed) || local_source(content).is_some() {
            return false;
        }
        match self.file(entry).map(|file| file.check()) {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.lost(entry, &error);
                false
            }
        }
    }

    /// File `entry` cannot be used any more, and is made as before.
    pub(super) fn lost(&self, entry: EntryId, error: &Error) {
        if self.complete.write().remove(&entry).is_some() {
            log::warn!("{error:#}; {COMPUTED_AGAIN}");
        }
    }

    /// File `entry` was opened to be read by requests.
    pub(super) fn opened(&self, entry: EntryId) {
        *self.opens.lock().entry(entry).or_default() += 1;
    }

    /// File `entry`, which was open to be read by requests, was closed.
    pub(super) fn closed(&self, entry: EntryId) {
        let mut opens = self.opens.lock();
        if let Some(count) = opens.get_mut(&entry) {
            *count -= 1;
            if *count == 0 {
                opens.remove(&entry);
                drop(opens);
                self.drop_pages(entry);
            }
        }
    }

    /// Says whether the kernel reads complete files by itself.
    pub(super) fn set_native(&self, is_native: bool) {
        self.is_native.store(is_native, Ordering::Relaxed);
    }

    /// Has the pages of file `entry` dropped, if nobody reads them any more.
    fn drop_pages(&self, entry: EntryId) {
        let is_unneeded = self.is_native.load(Ordering::Relaxed)
            && self.file(entry).is_some()
            && !self.opens.lock().contains_key(&entry);
        if is_unneeded {
            self.cached.lock().unneeded.push(entry);
            self.cached_changed.notify_one();
        }
    }

    /// The next file whose pages in the page cache of the mount are to be dropped, once there is one;
    /// `None` at the end.
    pub(in crate::fuse) fn next_unneeded(&self) -> Option<Inode> {
        let mut cached = self.cached.lock();
        loop {
            if cached.ended {
                return None;
            }
            if let Some(entry) = cached.unneeded.pop() {
                return Some(inode(entry));
            }
            self.cached_changed.wait(&mut cached);
        }
    }

    /// No more pages are dropped.
    pub(in crate::fuse) fn end_dropping(&self) {
        self.cached.lock().ended = true;
        self.cached_changed.notify_all();
    }

    /// The process of `thread`, as the kernel calls who asks.
    pub(super) fn process_of(&self, thread: u32) -> Process {
        if self.options.open == PersistOpen::Pass || thread == 0 {
            return 0;
        }
        let status = std::fs::read_to_string(format!("/proc/{thread}/status"));
        let tgid = |status: String| {
            let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
            line.trim().parse().ok()
        };
        status.ok().and_then(tgid).unwrap_or(0)
    }

    /// A read of file `entry`, which holds `content`, at `offset` for `process`: so far into the file
    /// that nobody gets there for the header alone, whatever the kernel reads ahead.
    pub(super) fn note_read(
        &self,
        process: Process,
        content: &Extents,
        offset: u64,
        read_ahead: u64,
    ) {
        let header = content.segments().first().map_or(0, |first| first.len);
        if process == 0 || offset < header + 2 * read_ahead {
            return;
        }
        let mut openings = self.openings.lock();
        openings.habits(process).reads_tensors = true;
    }

    /// How an opening of file `entry` by `process` waits for it to be complete; `None` if it does not:
    /// it may be after the header alone, if the process has not opened it before and read no tensor of
    /// any other.
    pub(super) fn wait(
        self: &Arc<Self>,
        entry: EntryId,
        content: &Extents,
        process: Process,
    ) -> Option<Wait> {
        if process == 0 || content.len() < WORTH_WAITING || content.whole_file().is_some() {
            return None;
        }
        if self.file(entry).is_some() {
            return None;
        }
        let mut openings = self.openings.lock();
        let habits = openings.habits(process);
        let is_first = habits.opened.insert(entry);
        let looks = is_first && !habits.reads_tensors;
        let all: usize = openings.waiting.values().sum();
        if openings.ended || looks || all >= MOST_WAITING {
            return None;
        }
        *openings.waiting.entry(entry).or_default() += 1;
        Some(Wait {
            persisted: self.clone(),
            entry,
        })
    }

    /// Whether the job is to let readers go first. It need not while an opening waits for it.
    pub(in crate::fuse) fn must_yield(&self) -> bool {
        let is_reading = self.reading.load(Ordering::Relaxed) > 0 || {
            let last = Duration::from_nanos(self.last_read.load(Ordering::Relaxed));
            !last.is_zero() && self.began.elapsed().saturating_sub(last) < PAUSE
        };
        is_reading && self.openings.lock().waiting.is_empty()
    }

    /// Notes that a request to read is answered until the result is dropped.
    pub(super) fn reading(&self) -> Reading<'_> {
        self.reading.fetch_add(1, Ordering::Relaxed);
        Reading(self)
    }

    /// No more files will be completed.
    pub(in crate::fuse) fn end(&self) {
        self.openings.lock().ended = true;
        self.changed.notify_all();
    }
}

/// A request to read that is being answered.
#[derive(Debug)]
pub(super) struct Reading<'a>(&'a Persisted);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let now = self.0.began.elapsed().as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.last_read.store(now, Ordering::Relaxed);
        self.0.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Openings {
    fn habits(&mut self, process: Process) -> &mut Habits {
        // Most of them have ended. The next opening by one that has not counts as its first.
        if self.processes.len() >= MOST_PROCESSES && !self.processes.contains_key(&process) {
            self.processes.clear();
        }
        self.processes.entry(process).or_default()
    }
}

impl Wait {
    /// Waits until the file is complete, or will not be, or for as long as is allowed.
    pub(in crate::fuse) fn wait(self) {
        let Wait { persisted, entry } = &self;
        let until = Instant::now() + LONGEST_WAIT;
        let mut openings = persisted.openings.lock();
        while !openings.ended && persisted.file(*entry).is_none() {
            if persisted
                .changed
                .wait_until(&mut openings, until)
                .timed_out()
            {
                break;
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut openings = self.persisted.openings.lock();
        if let Some(count) = openings.waiting.get_mut(&self.entry) {
            *count -= 1;
            if *count == 0 {
                openings.waiting.remove(&self.entry);
            }
        }
    }
}

impl Watcher for Persisted {
    fn complete(&self, entry: EntryId, path: &Path) {
        match LocalFile::of_weights(path) {
            Ok(file) => {
                self.complete.write().insert(entry, Arc::new(file));
                // An opening that found the file incomplete holds this lock until it waits.
                drop(self.openings.lock());
                self.changed.notify_all();
                self.drop_pages(entry);
            }
            Err(error) => log::warn!("{error:#}; {COMPUTED_AGAIN}"),
        }
    }

    fn wanted(&self) -> Vec<EntryId> {
        let waiting: Vec<EntryId> = self.openings.lock().waiting.keys().copied().collect();
        let mut open: Vec<EntryId> = self.opens.lock().keys().copied().collect();
        open.sort_unstable();
        waiting.into_iter().chain(open).collect()
    }

    fn placed(&self, destination: &Path, place: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        // Nobody looks for a file while it is moved.
        let mut complete = self.complete.write();
        place()?;
        complete.retain(|entry, file| {
            let path: PathBuf = destination.join(self.view.path(*entry));
            let moved = LocalFile::of_weights(path.clone()).and_then(|moved| {
                if moved.identity() == file.identity() {
                    Ok(moved)
                } else {
                    Err(Error::source_changed(
                        &path,
                        "it is not the file that was written",
                    ))
                }
            });
            match moved {
                Ok(moved) => *file = Arc::new(moved),
                Err(error) => log::warn!("{error:#}; {COMPUTED_AGAIN}"),
            }
            file.path() == path
        });
        Ok(())
    }
}

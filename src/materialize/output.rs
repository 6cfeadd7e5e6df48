//! One new file: writing into it by several threads, and forcing it to the disk.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::jobs::Progress;
use crate::materialize::failures::interrupted;
use crate::materialize::sums::{SegmentSums, Summing, Sums};
use crate::source::with_room;

/// A new file. It is made for its first piece and closed after its last one.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    file: OnceLock<File>,
    /// Held while it is made.
    making: Mutex<()>,
    /// Whether some of it cannot be written, so that it is never complete.
    failed: AtomicBool,
    sums: Mutex<SegmentSums>,
    sha256: bool,
}

impl Target {
    /// A file at `path`, which gets so many segments. With `sha256` they are all written by one
    /// [`Output`], in their order.
    pub(super) fn new(path: PathBuf, segments: usize, sha256: bool) -> Self {
        Target {
            path,
            file: OnceLock::new(),
            making: Mutex::default(),
            failed: AtomicBool::new(false),
            sums: Mutex::new(SegmentSums::new(segments)),
            sha256,
        }
    }

    /// The file, made by `make` if this is its first piece.
    fn file(&self, make: impl FnOnce() -> Result<File>) -> Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let _making = self.making.lock();
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = make()?;
        Ok(self.file.get_or_init(|| file))
    }

    /// Notes that some of it cannot be written.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Forces what was written to the disk; returns its checksums.
    ///
    /// # Errors
    /// If any of it did not get there.
    pub(super) fn sync(&self) -> Result<Sums> {
        let file = self.file.get().expect("its pieces are written");
        let synced = file.sync_all();
        synced.map_err(|e| Error::io("force to the disk", &self.path, e))?;
        Ok(self.sums.lock().whole())
    }
}

/// Forces the names in the directory `path` to the disk.
///
/// # Errors
/// If that could not be done, other than by a filesystem that has no such call.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    let synced = with_room(|| File::open(path)).and_then(|directory| directory.sync_all());
    match synced {
        Err(e) if !matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Err(Error::io("force the names to the disk", path, e))
        }
        _ => Ok(()),
    }
}

/// Writes one piece of a file.
pub(super) struct Output<'a> {
    file: &'a File,
    path: &'a Path,
    progress: &'a dyn Progress,
    /// Set once another thread has failed.
    failed: &'a AtomicBool,
    /// Start and end of what was written last and is not yet on its way to the disk.
    pending: Cell<(u64, u64)>,
    summing: RefCell<Summing>,
    sums: &'a Mutex<SegmentSums>,
}

impl<'a> Output<'a> {
    /// Bytes after which the disk is given something to do. If all was left to the end, the disk
    /// would idle while bytes are made, and the program while they are written.
    const WRITEBACK_BYTES: u64 = 16 << 20;

    /// Writes to `target`, which `make` makes if this is its first piece.
    pub(super) fn new(
        target: &'a Target,
        make: impl FnOnce() -> Result<File>,
        progress: &'a dyn Progress,
        failed: &'a AtomicBool,
    ) -> Result<Self> {
        Ok(Output {
            file: target.file(make)?,
            path: &target.path,
            progress,
            failed,
            pending: Cell::default(),
            summing: RefCell::new(Summing::new(target.sha256)),
            sums: &target.sums,
        })
    }

    pub(super) fn file(&self) -> &File {
        self.file
    }

    pub(super) fn path(&self) -> &Path {
        self.path
    }

    /// # Errors
    /// If the job was cancelled or has failed elsewhere, so that going on is in vain.
    pub(super) fn check_going_on(&self) -> Result<()> {
        if self.progress.cancelled() || self.failed.load(Ordering::Relaxed) {
            return Err(interrupted());
        }
        Ok(())
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.check_going_on()?;
        self.file.write_all_at(bytes, offset).map_err(|e| {
            let action = format!("write {} bytes at offset {offset}", bytes.len());
            Error::io(action, self.path, e)
        })?;
        self.summing.borrow_mut().see(bytes);
        self.wrote(offset, bytes.len() as u64);
        Ok(())
    }

    /// Notes that the kernel has copied `len` bytes to `offset`.
    pub(super) fn copied(&self, offset: u64, len: u64) -> Result<()> {
        let mut summing = self.summing.borrow_mut();
        if summing.wants_all() {
            let mut buffer = vec![0; len.min(1 << 20) as usize];
            for at in (offset..offset + len).step_by(buffer.len().max(1)) {
                let bytes = &mut buffer[..(offset + len - at).min(1 << 20) as usize];
                self.file.read_exact_at(bytes, at).map_err(|e| {
                    let action = format!("read {} bytes at offset {at}", bytes.len());
                    Error::io(action, self.path, e)
                })?;
                summing.see(bytes);
            }
        } else if len > 0 {
            summing.miss();
        }
        self.wrote(offset, len);
        Ok(())
    }

    /// Segment number `position` of the file is written.
    pub(super) fn end_segment(&self, position: usize) {
        let mut sums = self.sums.lock();
        self.summing.borrow_mut().end_segment(position, &mut sums);
    }

    /// All segments that this is for are written.
    pub(super) fn end(self) {
        self.summing.borrow_mut().end(&mut self.sums.lock());
    }

    /// Notes that `len` bytes at `offset` are written.
    fn wrote(&self, offset: u64, len: u64) {
        self.progress.advance(len);
        let (start, end) = self.pending.get();
        if offset == end {
            self.pending.set((start, end + len))
        } else {
            self.start_writeback();
            self.pending.set((offset, offset + len));
        }
        let (start, end) = self.pending.get();
        if end - start >= Self::WRITEBACK_BYTES {
            self.start_writeback();
        }
    }

    /// Has the kernel begin to write to the disk, without waiting for it.
    fn start_writeback(&self) {
        let (start, end) = self.pending.replace((0, 0));
        if end > start {
            // A hint: a filesystem that does not take it writes later.
            // SAFETY: the call takes a descriptor that is open for as long as `self`, and numbers.
            unsafe {
                libc::sync_file_range(
                    self.file.as_raw_fd(),
                    start as i64,
                    (end - start) as i64,
                    libc::SYNC_FILE_RANGE_WRITE,
                );
            }
        }
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        self.start_writeback();
    }
}

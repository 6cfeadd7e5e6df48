//! A file of this machine: opened when it is wanted, read at offsets, and watched for change.

use std::any::Any;
use std::fs::{File, Metadata};
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};

use crate::error::{Code, Error, Result};
use crate::shown::Show;
use crate::source::local::descriptors::{self, SOURCES};
use crate::source::local::direct;
use crate::source::pool::{InUse, Rank, Slot};
use crate::source::{self, Attributes, Blob};

/// When anything about a file changed, in nanoseconds: also its names, links, owner and mode.
fn change_time(metadata: &Metadata) -> i64 {
    let nanos = metadata.ctime().wrapping_mul(1_000_000_000);
    nanos.wrapping_add(metadata.ctime_nsec())
}

/// What makes a file the one that was planned. The change time is left out on purpose: making a
/// hard link to a source changes it, and not one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    mtime: SystemTime,
}

impl Identity {
    const REPLACED: &str = "another file has taken its name";

    fn difference(&self, now: &Identity) -> String {
        if (self.device, self.inode) != (now.device, now.inode) {
            Self::REPLACED.to_owned()
        } else if self.len != now.len {
            format!("it had {} bytes and now has {}", self.len, now.len)
        } else {
            "it was written to".to_owned()
        }
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            mtime: Attributes::from(metadata).mtime,
        }
    }
}

/// A regular file that a view takes bytes from.
///
/// It is opened when it is used and then kept open, so that a file replaced by `rename` keeps giving
/// the bytes that were planned. Where more sources were used than descriptors may be kept, those
/// that were not used for long are closed, and opened again when they are wanted; a file that was
/// replaced meanwhile gives an error, as one that was changed in place.
#[derive(Debug)]
pub struct LocalFile {
    path: Arc<Path>,
    attributes: Attributes,
    identity: Identity,
    /// When it was made, where its filesystem keeps that.
    born: Option<SystemTime>,
    rank: Rank,
    handle: Arc<Slot<File>>,
    /// What reads it past the page cache.
    direct: OnceLock<Arc<Slot<File>>>,
    /// Whether it cannot be read past the page cache.
    refuses_direct: AtomicBool,
    /// Of the open file, when its path was last known to lead to it.
    change_time: AtomicI64,
    /// Whether the log has it that the path no longer does.
    lost: AtomicBool,
}

/// A source file that is open, and stays open for as long as this lives.
#[derive(Debug)]
pub struct Handle<'a> {
    file: InUse<File>,
    /// The source counts how many are open.
    source: PhantomData<&'a LocalFile>,
}

impl Deref for Handle<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl AsFd for Handle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl LocalFile {
    /// Notes the identity of `path`, links followed, without opening it.
    ///
    /// # Errors
    /// If it does not exist or is not a regular file: a FIFO or device is refused before it is
    /// opened, since opening it could block.
    pub fn new(path: impl Into<Arc<Path>>) -> Result<Self> {
        Self::of_rank(path.into(), Rank::First)
    }

    /// The same of a file that holds tensors: where descriptors run short, it is closed after all
    /// that do not.
    ///
    /// # Errors
    /// As [`LocalFile::new`].
    pub fn of_weights(path: impl Into<Arc<Path>>) -> Result<Self> {
        Self::of_rank(path.into(), Rank::Last)
    }

    fn of_rank(path: Arc<Path>, rank: Rank) -> Result<Self> {
        let metadata = path
            .metadata()
            .map_err(|e| Error::io("read the attributes", &path, e))?;
        if !metadata.is_file() {
            return Err(Error::of_file(
                Code::WrongFileKind,
                &path,
                "this is not a regular file",
            ));
        }
        Ok(LocalFile {
            attributes: Attributes::from(&metadata),
            identity: Identity::from(&metadata),
            born: metadata.created().ok(),
            change_time: change_time(&metadata).into(),
            lost: AtomicBool::new(false),
            path,
            rank,
            handle: SOURCES.slot(rank),
            direct: OnceLock::new(),
            refuses_direct: AtomicBool::new(false),
        })
    }

    /// The path as the checkpoint names it (a link's own path, not its target).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode when the view was planned.
    pub fn device_and_inode(&self) -> (u64, u64) {
        (self.identity.device, self.identity.inode)
    }

    /// The open file, checked to be the one that was planned when it was opened.
    pub fn handle(&self) -> Result<Handle<'_>> {
        Ok(Handle {
            file: self.handle.get(|| self.open())?,
            source: PhantomData,
        })
    }

    fn open(&self) -> Result<File> {
        // By now there may be a FIFO at the path, and opening it would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let open = || Ok(rustix::fs::open(&*self.path, flags, Mode::empty())?);
        let failed = |e: io::Error| Error::io("open", &self.path, e);
        let file = File::from(descriptors::with_room(open).map_err(failed)?);
        self.check_open(&file)?;
        self.check_born(&file)?;
        // Reads may wait: some filesystems fetch what they have archived.
        rustix::fs::fcntl_setfl(&file, OFlags::empty()).map_err(|e| failed(e.into()))?;
        Ok(file)
    }

    /// While a file is not open, it can be deleted and another be made that has its inode.
    fn check_born(&self, file: &File) -> Result<()> {
        let born = file.metadata().and_then(|metadata| metadata.created());
        match (self.born, born) {
            (Some(planned), Ok(now)) if planned != now => Err(self.changed(Identity::REPLACED)),
            _ => Ok(()),
        }
    }

    /// Whether to [read `range` past the page cache](Self::read_blocks): it can be, and some of it is
    /// not in there.
    pub(crate) fn wants_direct(&self, range: &Range<u64>) -> Result<bool> {
        let file = self.direct()?;
        Ok(file.is_some_and(|file| !direct::is_cached(&file, range)))
    }

    /// The file, open to be read past the page cache; `None` if that cannot be done.
    fn direct(&self) -> Result<Option<InUse<File>>> {
        if self.refuses_direct.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let file = self.handle()?;
        let slot = self.direct.get_or_init(|| SOURCES.slot(self.rank));
        match slot.get(|| descriptors::with_room(|| direct::open(&file))) {
            Ok(direct) => Ok(Some(direct)),
            Err(error) => {
                // Later there may be descriptors for it.
                if !descriptors::is_shortage(&error) {
                    self.refuse_direct(error);
                }
                Ok(None)
            }
        }
    }

    /// Fills `blocks` from `offset` past the page cache, if it can be; returns whether it has the first
    /// `needed` bytes. What is not given, [`read_at`](Blob::read_at) gives, or says why
    /// not. Offset, memory and its length are multiples of [`BLOCK`](crate::source::BLOCK).
    ///
    /// # Errors
    /// [`Code::SourceChanged`], as `read_at`.
    pub(crate) fn read_blocks(
        &self,
        blocks: &mut [u8],
        offset: u64,
        needed: usize,
    ) -> Result<bool> {
        let Some(file) = self.direct()? else {
            return Ok(false);
        };
        match direct::read(&file, blocks, offset, needed) {
            Ok(true) => self.check_open(&file).map(|()| true),
            Ok(false) => Ok(false),
            Err(error) => {
                self.refuse_direct(error.into());
                Ok(false)
            }
        }
    }

    /// Notes that it cannot be read past the page cache; the log says so the first time for any file.
    fn refuse_direct(&self, error: io::Error) {
        self.refuses_direct.store(true, Ordering::Relaxed);
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: cannot be read past the page cache, and is read through it: {error}",
                self.path.shown()
            );
        }
    }

    /// Checks that the path still leads to the file that was planned.
    pub fn check_path(&self) -> Result<()> {
        let metadata = self
            .path
            .metadata()
            .map_err(|e| Error::io("read the attributes", &self.path, e))?;
        self.compare(&metadata)
    }

    fn check_open(&self, file: &File) -> Result<()> {
        let metadata = file
            .metadata()
            .map_err(|e| Error::io("read the attributes", &self.path, e))?;
        self.compare(&metadata)?;
        let change_time = change_time(&metadata);
        if self.change_time.load(Ordering::Relaxed) != change_time {
            self.change_time.store(change_time, Ordering::Relaxed);
            self.look_for_another();
        }
        Ok(())
    }

    /// Tells the log, the first time, if the path no longer leads to the open file: what is read
    /// stays right, but whoever put another file there may expect that one.
    fn look_for_another(&self) {
        if let Err(error) = self.check_path()
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            log::warn!("{error:#} (the planned file is still open, and its bytes are given)");
        }
    }

    fn compare(&self, metadata: &Metadata) -> Result<()> {
        let now = Identity::from(metadata);
        // Another kind of file may have the number that the planned one had.
        if !metadata.is_file() {
            return Err(self.changed("it is no longer a regular file".to_owned()));
        }
        if now != self.identity {
            return Err(self.changed(self.identity.difference(&now)));
        }
        Ok(())
    }

    fn changed(&self, what: impl std::fmt::Display) -> Error {
        Error::source_changed(&self.path, what)
    }

    fn io_error(&self, len: usize, offset: u64, source: io::Error) -> Error {
        Error::io(
            format!("read {len} bytes at offset {offset}"),
            &self.path,
            source,
        )
    }
}

impl dyn Blob {
    /// The file of this machine that it is, if it is one. What needs a descriptor or a path of this
    /// machine (passthrough, links, reflinks, `O_DIRECT`) asks for it, and does without if there is
    /// none.
    pub fn as_local(&self) -> Option<&LocalFile> {
        (self as &dyn Any).downcast_ref()
    }

    /// Whether both have the same bytes because they are the same file or object. `false` says
    /// nothing.
    pub fn is_same(&self, other: &dyn Blob) -> bool {
        match (self.as_local(), other.as_local()) {
            (Some(file), Some(other)) => file.device_and_inode() == other.device_and_inode(),
            (None, None) => {
                self.location() == other.location() && self.identity() == other.identity()
            }
            _ => false,
        }
    }
}

impl Blob for LocalFile {
    fn len(&self) -> u64 {
        self.identity.len
    }

    fn identity(&self) -> source::Identity {
        source::Identity::new(format!("{:?}", self.identity))
    }

    fn location(&self) -> &Arc<Path> {
        &self.path
    }

    fn attributes(&self) -> Attributes {
        self.attributes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let file = self.handle()?;
        match file.read_exact_at(buffer, offset) {
            Ok(()) => self.check_open(&file),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.check_open(&file)?;
                Err(self.io_error(buffer.len(), offset, e))
            }
            Err(e) => Err(self.io_error(buffer.len(), offset, e)),
        }
    }

    fn check(&self) -> Result<()> {
        self.check_open(&*self.handle()?)
    }
}

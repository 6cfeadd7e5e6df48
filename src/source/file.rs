//! A source file: opened once, read at offsets, and watched for change.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Owner, mode and time of a file or directory, as a view shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits only (no file type).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: SystemTime,
}

impl Attributes {
    fn of(metadata: &Metadata) -> Self {
        Attributes {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: mtime(metadata),
        }
    }

    /// The attributes of `path`, links followed.
    pub fn read(path: &Path) -> Result<Self> {
        let metadata = path
            .metadata()
            .map_err(|e| Error::io("read the attributes", path, e))?;
        Ok(Self::of(&metadata))
    }
}

fn mtime(metadata: &Metadata) -> SystemTime {
    let nanos = Duration::from_nanos(metadata.mtime_nsec().unsigned_abs());
    match u64::try_from(metadata.mtime()) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(metadata.mtime().unsigned_abs()) + nanos,
    }
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
    fn of(metadata: &Metadata) -> Self {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            mtime: mtime(metadata),
        }
    }

    fn difference(&self, now: &Identity) -> String {
        if (self.device, self.inode) != (now.device, now.inode) {
            "another file has taken its name".to_owned()
        } else if self.len != now.len {
            format!("it had {} bytes and now has {}", self.len, now.len)
        } else {
            "it was written to".to_owned()
        }
    }
}

/// A regular file that a view takes bytes from.
///
/// The descriptor is opened on first use and then kept, so that a file replaced by `rename`
/// keeps giving the bytes that were planned. A file that was changed in place gives an error.
#[derive(Debug)]
pub struct SourceFile {
    path: Arc<Path>,
    attributes: Attributes,
    identity: Identity,
    handle: OnceLock<File>,
}

impl SourceFile {
    /// Notes the identity of `path`, links followed, without opening it.
    ///
    /// # Errors
    /// If it does not exist or is not a regular file: a FIFO or device is refused before it is
    /// opened, since opening it could block.
    pub fn new(path: impl Into<Arc<Path>>) -> Result<Self> {
        let path = path.into();
        let metadata = path
            .metadata()
            .map_err(|e| Error::io("read the attributes", &path, e))?;
        if !metadata.is_file() {
            return Err(Error::checkpoint(&path, "this is not a regular file"));
        }
        Ok(SourceFile {
            attributes: Attributes::of(&metadata),
            identity: Identity::of(&metadata),
            path,
            handle: OnceLock::new(),
        })
    }

    /// The path as the checkpoint names it (a link's own path, not its target).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same path, to be shared.
    pub fn shared_path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Length in bytes when the view was planned.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.identity.len
    }

    /// What tells it, under its path, from every other file and from itself before a change.
    pub fn identity(&self) -> String {
        format!("{:?}", self.identity)
    }

    /// Owner, mode and modification time when the view was planned.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// The open file, checked to be the one that was planned.
    pub fn handle(&self) -> Result<&File> {
        if let Some(file) = self.handle.get() {
            return Ok(file);
        }
        let file = File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
        self.check(&file)?;
        Ok(self.handle.get_or_init(|| file))
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] if the file is not what it was when the view was planned, also
    /// when the change happened during this read: bytes that may be others are never given.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let file = self.handle()?;
        match file.read_exact_at(buffer, offset) {
            Ok(()) => self.check(file),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.check(file)?;
                Err(self.io_error(buffer.len(), offset, e))
            }
            Err(e) => Err(self.io_error(buffer.len(), offset, e)),
        }
    }

    /// The whole content.
    ///
    /// # Errors
    /// Also if the file has more than `most` bytes: it is not the text that it should be.
    pub fn read_all(&self, most: u64) -> Result<Vec<u8>> {
        if self.len() > most {
            return Err(Error::checkpoint(
                &self.path,
                format!("it has {} bytes; at most {most} are read", self.len()),
            ));
        }
        let mut content = vec![0; self.len() as usize];
        self.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// Checks that the path still leads to the file that was planned.
    pub fn check_path(&self) -> Result<()> {
        let metadata = self
            .path
            .metadata()
            .map_err(|e| Error::io("read the attributes", &self.path, e))?;
        self.compare(&metadata)
    }

    /// Checks that the open file is still the one that was planned.
    pub fn check_unchanged(&self) -> Result<()> {
        self.check(self.handle()?)
    }

    fn check(&self, file: &File) -> Result<()> {
        let metadata = file
            .metadata()
            .map_err(|e| Error::io("read the attributes", &self.path, e))?;
        self.compare(&metadata)
    }

    fn compare(&self, metadata: &Metadata) -> Result<()> {
        let now = Identity::of(metadata);
        if now == self.identity {
            return Ok(());
        }
        Err(Error::SourceChanged {
            path: self.path.to_path_buf(),
            what: self.identity.difference(&now),
        })
    }

    fn io_error(&self, len: usize, offset: u64, source: io::Error) -> Error {
        Error::io(
            format!("read {len} bytes at offset {offset}"),
            &self.path,
            source,
        )
    }
}

//! The directory that is checked: on this machine, where it may also be a mount, or at a URL.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Config;
use crate::error::{Error, Result};
use crate::source::{Blob, Directory, LocalFile, Location, check_directory, with_room};

/// The directory that is checked.
#[derive(Debug)]
pub(super) struct Place {
    /// As the user wrote it.
    path: PathBuf,
    /// `None` for a directory of this machine.
    remote: Option<Arc<dyn Directory>>,
}

/// What has a name, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    File(u64),
    Directory,
    Other,
}

/// A file that is read.
#[derive(Debug)]
pub(super) enum Opened {
    Local(File),
    Remote(Arc<dyn Blob>),
}

impl Place {
    /// # Errors
    /// If there is no directory.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let remote = match Location::from(directory) {
            Location::Local(path) => {
                check_directory(&path)?;
                None
            }
            location => Some(location.open()?),
        };
        Ok(Place {
            path: directory.to_owned(),
            remote,
        })
    }

    /// The place of `name` in it, for messages, and for what is on this machine alone.
    pub(super) fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// What is in the directory `inner`, each with whether it is a directory; links are none.
    pub(super) fn entries(&self, inner: &Path) -> Result<Vec<(OsString, bool)>> {
        let Some(top) = &self.remote else {
            let at = self.path.join(inner);
            let list_error = |e| Error::io("list", &at, e);
            let entries = with_room(|| fs::read_dir(&at)).map_err(list_error)?;
            let entries = entries.map(|entry| {
                let entry = entry.map_err(list_error)?;
                let is_directory = entry.file_type().map_err(list_error)?.is_dir();
                Ok((entry.file_name(), is_directory))
            });
            return entries.collect();
        };
        let below = match inner == Path::new("") {
            true => Some(top.clone()),
            false => top.below(&inner.to_string_lossy())?,
        };
        let Some(directory) = below else {
            return Ok(Vec::new());
        };
        let names = directory.names()?.into_iter().map(|name| {
            let below = directory.below(&name.to_string_lossy())?;
            Ok((name, below.is_some()))
        });
        names.collect()
    }

    /// What is called `name`; `None` if there is nothing.
    pub(super) fn shape(&self, name: &Path) -> Result<Option<Shape>> {
        let Some(directory) = &self.remote else {
            let path = self.path.join(name);
            let metadata = match path.metadata() {
                Ok(metadata) => metadata,
                // The second: below a file that should be a directory, which is reported for itself.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                Err(e) => return Err(Error::io("read the attributes", path, e)),
            };
            return Ok(Some(if metadata.is_dir() {
                Shape::Directory
            } else if metadata.is_file() {
                Shape::File(metadata.len())
            } else {
                Shape::Other
            }));
        };
        let name = name.to_string_lossy();
        if directory.has(&name) {
            return Ok(Some(Shape::File(directory.file(&name)?.len())));
        }
        let below = directory.below(&name)?;
        Ok(below.map(|_| Shape::Directory))
    }

    /// Whether there is something called `name`, also a link that leads nowhere.
    pub(super) fn has(&self, name: &str) -> bool {
        match &self.remote {
            None => self.path.join(name).symlink_metadata().is_ok(),
            Some(directory) => directory.has(name),
        }
    }

    /// The file called `name`.
    pub(super) fn blob(&self, name: &str) -> Result<Arc<dyn Blob>> {
        match &self.remote {
            None => Ok(Arc::new(LocalFile::new(self.path.join(name))?)),
            Some(directory) => directory.file(name),
        }
    }

    /// The same of a file that holds tensors.
    pub(super) fn weights(&self, name: &str) -> Result<Arc<dyn Blob>> {
        match &self.remote {
            None => Ok(Arc::new(LocalFile::of_weights(self.path.join(name))?)),
            Some(directory) => directory.weights(name),
        }
    }

    /// The content of the file called `name`, or why it cannot be read, for people.
    pub(super) fn text(&self, name: &str) -> std::result::Result<Vec<u8>, String> {
        match &self.remote {
            None => with_room(|| fs::read(self.path.join(name))).map_err(|e| e.to_string()),
            Some(directory) => {
                let file = directory.file(name);
                let text = file.and_then(|file| file.read_all(Config::MAX_BYTES));
                text.map_err(|e| e.problem().to_owned())
            }
        }
    }

    /// The file called `name`, to be read as it is.
    pub(super) fn opened(&self, name: &Path) -> Result<Opened> {
        match &self.remote {
            None => {
                let path = self.path.join(name);
                let file = with_room(|| File::open(&path));
                file.map(Opened::Local)
                    .map_err(|e| Error::io("open", &path, e))
            }
            Some(directory) => directory.file(&name.to_string_lossy()).map(Opened::Remote),
        }
    }
}

impl Opened {
    /// Fills `buffer` from `offset`; `path` is for messages.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64, path: &Path) -> Result<()> {
        match self {
            Opened::Remote(blob) => blob.read_at(buffer, offset),
            Opened::Local(file) => file.read_exact_at(buffer, offset).map_err(|e| {
                let action = format!("read {} bytes at offset {offset}", buffer.len());
                Error::io(action, path, e)
            }),
        }
    }
}

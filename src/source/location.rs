//! Where checkpoints are: what a request names them by.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::error::Result;
use crate::source::directory::Directory;
use crate::source::local::LocalDirectory;

/// Where a checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a directory of this machine.
    Local(PathBuf),
}

impl Location {
    /// Opens the directory that is there.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(self) -> Result<Box<dyn Directory>> {
        match self {
            Location::Local(path) => Ok(Box::new(LocalDirectory::open(path)?)),
        }
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Location {
    fn from(path: &T) -> Self {
        Location::Local(path.into())
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::Local(path)
    }
}

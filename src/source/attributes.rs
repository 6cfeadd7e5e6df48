//! What a view shows of a file or directory beside its bytes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
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
    /// The attributes of `path`, links followed.
    pub fn read(path: &Path) -> Result<Self> {
        let metadata = path
            .metadata()
            .map_err(|e| Error::io("read the attributes", path, e))?;
        Ok(Self::from(&metadata))
    }
}

impl From<&Metadata> for Attributes {
    fn from(metadata: &Metadata) -> Self {
        Attributes {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: mtime(metadata),
        }
    }
}

fn mtime(metadata: &Metadata) -> SystemTime {
    let nanos = Duration::from_nanos(metadata.mtime_nsec().unsigned_abs());
    match u64::try_from(metadata.mtime()) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(metadata.mtime().unsigned_abs()) + nanos,
    }
}

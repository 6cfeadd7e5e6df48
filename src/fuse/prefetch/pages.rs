//! The page cache of a mount.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{INodeNo, Notifier};

use crate::error::{Code, Error, Result};
use crate::fuse::prefetch::room::room;
use crate::fuse::server::Inode;

/// Where bytes of files are kept for readers to come.
pub(in crate::fuse) trait Pages: Send + Sync {
    /// Looks up file `path` of the view, so that the kernel knows it as `inode` and accepts its bytes.
    ///
    /// # Errors
    /// If something else is there.
    fn look_up(&self, path: &Path, inode: Inode) -> Result<()>;

    /// Gives the kernel `bytes` of `inode` from `offset`.
    ///
    /// # Errors
    /// If it takes none any more.
    fn store(&self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Whether more fit into memory than the `held` bytes that were brought there.
    fn have_room(&self, held: u64) -> bool;
}

/// Those of a mount.
#[derive(Debug)]
pub(in crate::fuse) struct MountPages {
    mountpoint: PathBuf,
    notifier: Notifier,
    /// What was held when the memory was last looked at.
    looked_at: AtomicU64,
}

impl MountPages {
    /// Looking takes as long as to copy a tenth of this.
    const LOOK: u64 = 16 << 20;

    pub(in crate::fuse) fn new(mountpoint: &Path, notifier: Notifier) -> Self {
        MountPages {
            mountpoint: mountpoint.to_owned(),
            notifier,
            looked_at: AtomicU64::new(u64::MAX),
        }
    }
}

impl Pages for MountPages {
    fn look_up(&self, path: &Path, inode: Inode) -> Result<()> {
        let path = self.mountpoint.join(path);
        let metadata = path.symlink_metadata();
        let metadata = metadata.map_err(|e| Error::io("look up", &path, e))?;
        if metadata.ino() == inode {
            return Ok(());
        }
        let problem = "the mount was moved or covered";
        Err(Error::of_file(Code::NotServing, path, problem))
    }

    fn store(&self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.notifier.store(INodeNo(inode), offset, bytes)
    }

    fn have_room(&self, held: u64) -> bool {
        let last = self.looked_at.load(Ordering::Relaxed);
        if last <= held && held < last.saturating_add(Self::LOOK) {
            return true;
        }
        self.looked_at.store(held, Ordering::Relaxed);
        room().is_none_or(|room| held < room)
    }
}

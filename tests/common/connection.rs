//! The kernel's account of the connection over which it asks for a mount.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// The account of one mount, which only root can see.
#[derive(Debug)]
pub(crate) struct Connection {
    control: TempDir,
    waiting: PathBuf,
}

impl Connection {
    /// That of the FUSE mount at `mountpoint`.
    pub(crate) fn of(mountpoint: &Path) -> io::Result<Self> {
        const TYPE: &str = "fusectl";
        let device = fs::metadata(mountpoint)?.dev();
        let control = TempDir::new()?;
        rustix::mount::mount(TYPE, control.path(), TYPE, MountFlags::empty(), None)?;
        let connection = rustix::fs::minor(device).to_string();
        Ok(Connection {
            waiting: control.path().join(connection).join("waiting"),
            control,
        })
    }

    /// How many requests have not been answered.
    pub(crate) fn waiting(&self) -> u64 {
        let text = fs::read_to_string(&self.waiting).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.control.path(), UnmountFlags::DETACH);
    }
}

//! The plan that a mount of ours shows of itself, told from any other file of that name.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::fuse::mount_table;
use crate::fuse::resolve::resolve;
use crate::fuse::server::{PLAN, PLAN_INODE};
use crate::source::MOUNT_DIRECTORY;

/// What `.ckptfs/plan.json` of a mount holds.
#[derive(Debug, Clone)]
pub struct MountPlan {
    /// The number of the mounted filesystem, which `stat` shows of all its files.
    pub device: u64,
    /// As `plan --json` prints it.
    pub text: Vec<u8>,
}

/// The plan of the mount of ours whose top directory is `directory`. `None` if that is anything
/// else, and if the mount shows no plan: one that cannot be read is never an error.
pub fn mount_plan(directory: &Path) -> Option<MountPlan> {
    /// Some hundred bytes for each tensor of a view.
    const MAX_BYTES: u64 = 1 << 30;
    let path = resolve(directory).ok()?;
    let is_ours = mount_table::at(&path).ok()?.is_some_and(|m| m.is_ours());
    if !is_ours {
        return None;
    }
    let mut file = File::options()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path.join(MOUNT_DIRECTORY).join(PLAN))
        .ok()?;
    let metadata = file.metadata().ok()?;
    // A view may hold such a file of a source in a subdirectory, which may be mounted by itself; its
    // inode is another one.
    let is_own = metadata.ino() == PLAN_INODE && metadata.dev() == path.metadata().ok()?.dev();
    let is_still_mounted = mount_table::entry_of_file(&file).is_some_and(|m| m.is_ours());
    if !is_own || !is_still_mounted {
        return None;
    }
    let mut text = Vec::new();
    file.by_ref().take(MAX_BYTES).read_to_end(&mut text).ok()?;
    Some(MountPlan {
        device: metadata.dev(),
        text,
    })
}

//! The end of a mount: only ever of one of ours.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::mount::UnmountFlags;

use crate::error::setting::LAZY;
use crate::error::{Code, Error, Hint, Result};
use crate::fuse::ancestors::ancestors;
use crate::fuse::condition::{Condition, PATIENCE, in_time, silent};
use crate::fuse::fusermount;
use crate::fuse::holders::{Holder, holders};
use crate::fuse::mount_table::{self, FILESYSTEM_TYPE, MountEntry};
use crate::fuse::resolve::resolve;
use crate::shown::Show;
use crate::source::MOUNT_DIRECTORY;

/// Unmounts the view at `mountpoint`, also a dead one whose process was killed. `lazy` detaches it
/// even while it is in use; files that are open then stay readable until they are closed.
///
/// # Errors
/// If nothing of ours is mounted there, or if it is in use and not `lazy`; the error then names
/// the processes that use it.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<()> {
    let path = resolve(mountpoint)?;
    let Some(entry) = mount_table::at(&path)? else {
        return Err(mount_table::nothing_mounted(&path));
    };
    if !entry.is_ours() {
        let other = entry.filesystem_type.shown();
        let problem =
            format!("the mount there is of type {other}, not {FILESYSTEM_TYPE}; it was left alone");
        return Err(Error::of_file(Code::NotMounted, &path, problem));
    }
    /// How often to try again where nobody holds it, or only to read its figures: whoever does, as
    /// `ckptfs status` and `top`, lets go at once.
    const TRIES: usize = 5;
    const PAUSE: Duration = Duration::from_millis(20);
    for attempt in 1.. {
        match take_away(&entry, lazy) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                match Condition::probe(&path)
                    .map_err(|e| Error::io("ask the mount at", &path, e))?
                {
                    // Whoever still has it open has lost it already.
                    Condition::Dead => return detach(&entry),
                    Condition::Silent => {
                        return Err(silent(&path, "the view there is in use", &entry));
                    }
                    Condition::Answers => {}
                }
                let place = path.clone();
                let found = in_time(PATIENCE, move || holders(&place));
                let holders = found.transpose()?.unwrap_or_default();
                let own_files = path.join(MOUNT_DIRECTORY);
                let lets_go = |holder: &Holder| holder.path().starts_with(&own_files);
                if attempt == TRIES || !holders.iter().all(lets_go) {
                    return Err(busy(&path, &holders));
                }
                thread::sleep(PAUSE);
            }
            Err(e) => return Err(Error::io("unmount", &path, e)),
            Ok(()) => break,
        }
    }
    Ok(())
}

/// Takes `entry` out of the tree even while it is in use.
pub(super) fn detach(entry: &MountEntry) -> Result<()> {
    take_away(entry, true).map_err(|e| Error::io("unmount", &entry.mountpoint, e))
}

/// Unmounts `entry`, which is gone from the mount table when this returns.
fn take_away(entry: &MountEntry, lazy: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(&entry.mountpoint, flags) {
        Err(rustix::io::Errno::PERM) => fusermount::unmount(&entry.mountpoint, lazy),
        result => Ok(result?),
    }
}

fn busy(path: &Path, holders: &[Holder]) -> Error {
    let ours = ancestors();
    let is_shell = |holder: &&Holder| {
        holder
            .is_in_directory()
            .is_some_and(|id| ours.contains(&id))
    };
    if let Some(shell) = holders.iter().find(is_shell)
        && holders.iter().all(|holder| is_shell(&holder))
    {
        let problem = format!(
            "this shell's working directory, {}, is inside of the mount",
            shell.path().shown()
        );
        return Error::of_file(Code::InUse, path, problem).with_hint("cd out of it");
    }
    let mut problem = "it is in use".to_owned();
    if holders.is_empty() {
        problem += " by processes that only root can see";
    }
    for holder in holders {
        problem += &format!("\n  {holder}");
        if is_shell(&holder) {
            problem += " (this shell: cd out of it)";
        }
    }
    let lazy = Hint::give(LAZY)
        .to("detach it: files that are open then stay readable until they are closed");
    Error::of_file(Code::InUse, path, problem).with_hint(Hint::text("end that use first").or(lazy))
}

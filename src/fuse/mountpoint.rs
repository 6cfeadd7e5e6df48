//! Which directories a view may be mounted on.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::error::setting::NONEMPTY;
use crate::error::{Code, Error, Hint, Result};
use crate::fuse::condition::{Condition, silent};
use crate::fuse::mount_table::{self, MountEntry};
use crate::fuse::options::MountOptions;
use crate::fuse::unmount;
use crate::shown::Show;
use crate::source::Location;
use crate::view::View;

/// Checks that `view` may be mounted on `path`, which is absolute and free of links. Clears what a
/// killed process of ours left there.
pub(super) fn check(path: &Path, view: &View, options: &MountOptions) -> Result<()> {
    refuse_overlap(path, &options.sources)?;
    clear_dead_mounts(path)?;
    if is_empty_directory(path)? {
        return Ok(());
    }
    if options.nonempty {
        return refuse_hiding(path, view);
    }
    let problem = "this directory is not empty, and a mount hides what is in it";
    let error = Error::of_file(Code::NotEmpty, path, problem);
    let hide = Hint::give(NONEMPTY).to("mount over it");
    Err(error.with_hint(Hint::text("mount on an empty one").or(hide)))
}

fn refuse_overlap(mountpoint: &Path, sources: &[Location]) -> Result<()> {
    for source in sources.iter().filter_map(Location::local) {
        let Ok(source) = source.canonicalize() else {
            continue;
        };
        let problem = if mountpoint == source {
            "is a source of this view"
        } else if mountpoint.starts_with(&source) {
            "is inside a source of this view"
        } else if source.starts_with(mountpoint) {
            "would hide a source of this view"
        } else {
            continue;
        };
        let problem = format!("this mountpoint {problem} ({})", source.shown());
        let error = Error::of_file(Code::BadMountpoint, mountpoint, problem);
        return Err(error.with_hint("mount elsewhere"));
    }
    Ok(())
}

/// Clears what a killed process left behind.
fn clear_dead_mounts(path: &Path) -> Result<()> {
    while let Some(entry) = mount_table::at(path)?.filter(MountEntry::is_ours) {
        let taken = format!(
            "a view of {} is already mounted there",
            entry.source.shown()
        );
        match Condition::probe(path).map_err(|e| Error::io("ask the mount at", path, e))? {
            Condition::Dead => {}
            Condition::Silent => return Err(silent(path, &taken, &entry)),
            Condition::Answers => {
                let error = Error::of_file(Code::AlreadyMounted, path, taken);
                let unmount = format!("unmount it first: ckptfs unmount {}", path.shown());
                return Err(error.with_hint(unmount));
            }
        }
        log::warn!("{}: clearing a mount whose process is gone", path.shown());
        unmount::detach(&entry)?;
    }
    Ok(())
}

fn is_empty_directory(path: &Path) -> Result<bool> {
    let metadata = path
        .metadata()
        .map_err(|e| Error::io("read the attributes", path, e))?;
    if !metadata.is_dir() {
        let error = Error::of_file(Code::BadMountpoint, path, "this is not a directory");
        return Err(error.with_hint("mount on an empty directory"));
    }
    let mut entries = fs::read_dir(path).map_err(|e| Error::io("list", path, e))?;
    Ok(entries.next().is_none())
}

/// Refuses to hide, below `path`, another mount or what a link leads to that `view` reads.
fn refuse_hiding(path: &Path, view: &View) -> Result<()> {
    let refuse = |what: &str, hidden: &Path| {
        let problem = format!("mounting there would hide {what} at {}", hidden.shown());
        let error = Error::of_file(Code::BadMountpoint, path, problem);
        Err(error.with_hint("mount elsewhere"))
    };
    for mount in mount_table::entries()? {
        if mount.mountpoint.starts_with(path) {
            return refuse("another mount", &mount.mountpoint);
        }
    }
    let mut files = HashSet::new();
    view.for_each_source(&mut |blob| {
        if blob.as_local().is_some() {
            files.insert(blob.location().clone());
        }
    });
    for file in files {
        match file.canonicalize() {
            Ok(file) if file.starts_with(path) => return refuse("a source of this view", &file),
            _ => {}
        }
    }
    Ok(())
}

//! Paths that may lead into mounts of ours, followed without waiting for one that does not answer.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::fuse::condition::{Condition, silent};
use crate::fuse::mount_table::{self, MountEntry, leading_into};
use crate::shown::Show;

/// `mountpoint` as an absolute path without links. A mount there, of which nothing is asked, is no
/// hindrance if it is dead or does not answer.
///
/// # Errors
/// If it does not exist; if it leads through a mount of ours that does not answer.
pub(super) fn resolve(mountpoint: &Path) -> Result<PathBuf> {
    let mut walk = Walk::new(mountpoint)?;
    match walk.follow_all() {
        Ok(()) => Ok(walk.at),
        Err(Stop::Silent(error)) => Err(error),
        Err(Stop::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
            let error = Error::of_file(
                Code::BadMountpoint,
                mountpoint,
                "there is no such directory",
            );
            Err(error.with_hint("make it first"))
        }
        Err(Stop::Io(e)) => Err(Error::io("find", mountpoint, e)),
    }
}

/// Checks that `path`, as far as it exists, does not lead into a mount of ours that does not answer:
/// looking at what is there would mean waiting for it.
///
/// # Errors
/// If it does; the error names the process that serves it.
pub fn check_answers(path: &Path) -> Result<()> {
    let mut walk = Walk::new(path)?;
    let ended = walk.follow_all();
    match ended.and_then(|()| walk.check_answers()) {
        Err(Stop::Silent(error)) => Err(error),
        // Opening it shows what is wrong.
        Ok(()) | Err(Stop::Io(_)) => Ok(()),
    }
}

/// Why a path cannot be followed further.
enum Stop {
    Io(io::Error),
    /// It leads into a mount that does not answer.
    Silent(Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Io(error)
    }
}

struct Walk<'a> {
    /// As the user wrote it.
    shown: &'a Path,
    mounts: Vec<MountEntry>,
    /// Where it is: absolute, without links.
    at: PathBuf,
    /// What is still to be followed.
    names: VecDeque<OsString>,
    links: usize,
    /// Mounts that were asked, and answer.
    answering: HashSet<u64>,
}

impl<'a> Walk<'a> {
    /// Links that are followed at most, as by the kernel.
    const MAX_LINKS: usize = 40;

    fn new(path: &'a Path) -> Result<Self> {
        let absolute = std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
        Ok(Walk {
            shown: path,
            mounts: mount_table::entries()?,
            at: PathBuf::from("/"),
            names: names(&absolute).collect(),
            links: 0,
            answering: HashSet::new(),
        })
    }

    fn follow_all(&mut self) -> std::result::Result<(), Stop> {
        while let Some(name) = self.names.pop_front() {
            if name == ".." {
                self.at.pop();
                continue;
            }
            let next = self.at.join(&name);
            let into = leading_into(&self.mounts, &next);
            if into.is_some_and(|mount| mount.mountpoint == next) {
                // A directory, then.
                self.at = next;
                continue;
            }
            self.check_answers()?;
            match fs::read_link(&next) {
                Ok(target) => self.follow(&target)?,
                // No link.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => self.at = next,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn follow(&mut self, target: &Path) -> io::Result<()> {
        self.links += 1;
        if self.links > Self::MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if target.is_absolute() {
            self.at = PathBuf::from("/");
        }
        let names: Vec<OsString> = names(target).collect();
        names
            .into_iter()
            .rev()
            .for_each(|name| self.names.push_front(name));
        Ok(())
    }

    /// Checks that the mount that this is in answers, if it is ours.
    fn check_answers(&mut self) -> std::result::Result<(), Stop> {
        let Some(mount) = leading_into(&self.mounts, &self.at).filter(|mount| mount.is_ours())
        else {
            return Ok(());
        };
        if self.answering.contains(&mount.id) {
            return Ok(());
        }
        if Condition::probe(&mount.mountpoint)? == Condition::Silent {
            let inside = format!("the view at {} holds it", mount.mountpoint.shown());
            return Err(Stop::Silent(silent(self.shown, &inside, mount)));
        }
        self.answering.insert(mount.id);
        Ok(())
    }
}

/// The names in `path` that lead somewhere else.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_resolves_as_by_the_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/file"), "").unwrap();
        symlink("a/b", top.join("relative")).unwrap();
        symlink(top.join("a"), top.join("absolute")).unwrap();
        symlink("../../absolute/b", top.join("a/b/up")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        symlink("gone", top.join("dangling")).unwrap();
        for path in [
            "a",
            "a/",
            "a/./b",
            "a/b/..",
            "relative",
            "relative/..",
            "absolute/b/up/up",
            "a/file",
            "loop",
            "dangling",
            "gone",
            "a/file/x",
        ] {
            let path = top.join(path);
            let found = resolve(&path).ok();
            assert_eq!(found, path.canonicalize().ok(), "{}", path.shown());
            assert!(check_answers(&path).is_ok(), "{}", path.shown());
        }
        for path in ["/", ".", "..", "/proc/self/fd"] {
            let expected = Path::new(path).canonicalize().unwrap();
            // The number of the process is the same, and that of the thread does not matter.
            assert_eq!(resolve(Path::new(path)).unwrap(), expected, "{path}");
        }
    }
}

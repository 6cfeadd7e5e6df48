//! Where commands may write: never over what a view is made from, into it, or around it.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::shown::Show;
use crate::source::Location;
use crate::view::View;

/// What no output may touch.
#[derive(Debug)]
pub struct OutputCheck {
    protected: Vec<Protected>,
}

/// A file or directory that no output may touch.
#[derive(Debug)]
struct Protected {
    /// As the user knows it.
    shown: PathBuf,
    /// Absolute, without links.
    path: PathBuf,
    identity: Option<Identity>,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Mountpoint,
    Destination,
}

/// As many links are followed one after the other; Linux follows as many.
const MAX_LINKS: usize = 40;

/// Device and inode: the same file has the same, by whichever link or bind mount it is reached.
type Identity = (u64, u64);

impl OutputCheck {
    /// Keeps outputs away from `inputs`, the files and directories that a view is made from, and from
    /// the files that links in them lead to, as in the cache of the Hugging Face hub. Those at URLs need
    /// no protection here: outputs are on this machine.
    ///
    /// # Errors
    /// If an input cannot be resolved.
    pub fn new(inputs: &[PathBuf], view: &View) -> Result<Self> {
        let mut check = OutputCheck {
            protected: Vec::new(),
        };
        let mut seen = HashSet::new();
        for input in inputs.iter().filter(|input| is_local(input)) {
            check.keep(input, canonical(input)?, Role::Source);
            // Also those that the view only reads when it is planned.
            for link in links(input) {
                if let Ok(path) = link.canonicalize()
                    && seen.insert(path.clone())
                {
                    check.keep(&link, path, Role::Source);
                }
            }
        }
        let mut files = HashSet::new();
        view.for_each_source(&mut |blob| {
            if blob.as_local().is_some() {
                files.insert(blob.location().clone());
            }
        });
        for file in files {
            // A file whose name is lost by now cannot be written over.
            if let Ok(path) = file.canonicalize()
                && seen.insert(path.clone())
            {
                check.keep(&file, path, Role::Source);
            }
        }
        Ok(check)
    }

    /// Keeps outputs also out of the directory that the view is to be mounted on.
    #[must_use]
    pub fn with_mountpoint(mut self, mountpoint: &Path) -> Self {
        self.keep_place(mountpoint, Role::Mountpoint);
        self
    }

    /// Keeps other outputs also out of the directory that the view is written to.
    #[must_use]
    pub fn with_destination(mut self, out: &Path) -> Self {
        self.keep_place(out, Role::Destination);
        self
    }

    fn keep_place(&mut self, place: &Path, role: Role) {
        // A mountpoint whose process is gone cannot be resolved.
        let path = resolve_missing(place).ok();
        let path = path.or_else(|| std::path::absolute(place).ok());
        self.keep(place, path.unwrap_or_else(|| place.to_owned()), role);
    }

    fn keep(&mut self, shown: &Path, path: PathBuf, role: Role) {
        self.protected.push(Protected {
            shown: shown.to_owned(),
            identity: path.metadata().ok().map(|metadata| identity(&metadata)),
            path,
            role,
        });
    }

    /// Checks that `out`, a file or directory that need not exist, may be written to.
    ///
    /// # Errors
    /// If it is something that must be protected, is inside of it, or holds it; if it is a URL.
    pub fn check(&self, out: &Path) -> Result<()> {
        if !is_local(out) {
            let problem = "this is written to a place on this machine, not to a URL";
            return Err(Error::of_file(Code::UnsupportedPlace, out, problem));
        }
        let found = out.metadata().ok();
        let path = match (resolve_output(out, MAX_LINKS), &found) {
            (Ok(path), _) => path,
            // Such as /dev/stderr, where that is a pipe.
            (Err(_), Some(found)) if !found.is_file() && !found.is_dir() => return Ok(()),
            (Err(error), _) => return Err(error),
        };
        let ancestors: Vec<Identity> = path
            .ancestors()
            .skip(1)
            .filter_map(|path| path.metadata().ok())
            .map(|metadata| identity(&metadata))
            .collect();
        let found = found.map(|metadata| identity(&metadata));
        for protected in &self.protected {
            let is_same = |found| protected.identity == Some(found);
            let relation = if path == protected.path || found.is_some_and(is_same) {
                "is"
            } else if path.starts_with(&protected.path) || ancestors.iter().copied().any(is_same) {
                "is inside"
            } else if protected.path.starts_with(&path) && protected.role != Role::Mountpoint {
                "holds"
            } else {
                continue;
            };
            return Err(protected.refuse(out, relation));
        }
        Ok(())
    }
}

impl Protected {
    fn refuse(&self, out: &Path, relation: &str) -> Error {
        let why = match self.role {
            Role::Source => "which the view is made from",
            Role::Mountpoint => "which the view is to be mounted on",
            Role::Destination => "which the view is written to",
        };
        let kept = self.shown.shown();
        // A link may lead there.
        let also = match std::path::absolute(&self.shown) {
            Ok(shown) if shown == self.path => String::new(),
            _ => format!(" ({})", self.path.shown()),
        };
        let problem = format!("this {relation} {kept}{also}, {why}");
        Error::of_file(Code::BadDestination, out, problem).with_hint("choose another place")
    }
}

fn is_local(path: &Path) -> bool {
    Location::from(path).local().is_some()
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The links at the top level of `directory`; none if it is a file.
fn links(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
        .map(|entry| entry.path())
        .collect()
}

/// As [`resolve_missing`], also through links to what does not exist, which would be made there.
fn resolve_output(path: &Path, links_left: usize) -> Result<PathBuf> {
    let error = match resolve_missing(path) {
        Ok(path) => return Ok(path),
        Err(error) => error,
    };
    let absolute = std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))?;
    let mut ancestors = absolute.ancestors();
    let Some(link) = ancestors.find(|path| path.symlink_metadata().is_ok()) else {
        return Err(error);
    };
    let below = absolute.strip_prefix(link).expect("it is an ancestor");
    match (link.parent(), fs::read_link(link)) {
        (Some(parent), Ok(target)) if links_left > 0 => {
            let target = below
                .iter()
                .fold(parent.join(target), |path, part| path.join(part));
            resolve_output(&target, links_left - 1)
        }
        _ => Err(error),
    }
}

/// The canonical path of `path`, the end of which need not exist.
///
/// # Errors
/// If it leads through a link to nowhere, or through a directory that does not exist.
pub(crate) fn resolve_missing(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))?;
    // A link that leads nowhere exists; what it names cannot be resolved.
    let exists = |path: &&Path| path.symlink_metadata().is_ok();
    let existing = absolute
        .ancestors()
        .find(exists)
        .expect("the top directory exists");
    let missing = absolute
        .strip_prefix(existing)
        .expect("an ancestor is a prefix");
    if missing
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Err(Error::of_file(
            Code::BadDestination,
            path,
            "it goes through a directory that does not exist",
        ));
    }
    let mut resolved = canonical(existing)?;
    resolved.extend(missing);
    Ok(resolved)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .map_err(|e| Error::io("resolve", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_do_not_exist_resolve_through_links() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("real", &link).unwrap();
        assert_eq!(
            resolve_missing(&link.join("a/b")).unwrap(),
            real.join("a/b")
        );
        assert!(resolve_missing(&link.join("a/../b")).is_err());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_not_resolved() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(resolve_missing(&link).is_err());
        assert!(resolve_missing(&link.join("below")).is_err());
    }
}

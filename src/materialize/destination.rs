//! Where a view is written to: what must not be touched, and how the new takes the old's place.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::setting::OVERWRITE;
use crate::error::{Code, Error, Hint, Result};
use crate::fast_paths::FastPath;
use crate::materialize::options::Options;
use crate::materialize::partial::SUFFIX;
use crate::outputs::{OutputCheck, resolve_missing};
use crate::recipe::Plan;
use crate::source::Location;

/// The directory that is to hold the view. It is no input, holds none and is inside of none.
#[derive(Debug)]
pub(super) struct Destination {
    /// As the user wrote it.
    shown: PathBuf,
    /// Absolute, without links.
    path: PathBuf,
}

impl Destination {
    /// Finds out what `out` is. It need not exist.
    ///
    /// # Errors
    /// If it is a file, or writing to it, or to the cache of facts, could touch an input.
    pub(super) fn resolve(
        out: &Path,
        plan: &Plan,
        inputs: &[PathBuf],
        options: &Options,
    ) -> Result<Self> {
        let destination = Destination {
            shown: out.to_owned(),
            path: resolve_missing(out)?,
        };
        if destination.exists() && !out.is_dir() {
            return Err(destination.refuse(Code::WrongFileKind, "this is not a directory"));
        }
        if destination.path.parent().is_none() {
            return Err(destination.refuse(
                Code::BadDestination,
                "a view cannot replace the top directory",
            ));
        }
        let check = OutputCheck::new(inputs, &plan.view)?;
        check.check(out)?;
        if let Some(facts) = &options.facts_cache {
            check.with_destination(out).check(facts)?;
        }
        Ok(destination)
    }

    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the destination is in, or is to be.
    pub(super) fn parent(&self) -> &Path {
        self.path
            .parent()
            .expect("resolve refuses the top directory")
    }

    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    pub(super) fn refuse(&self, code: Code, problem: impl Into<String>) -> Error {
        Error::of_file(code, &self.shown, problem)
    }

    /// `error` about a path in the directory `partial`, about the path that it is written for instead:
    /// the user asked for that one.
    pub(super) fn as_asked_for(&self, error: Error, partial: &Path) -> Error {
        let inside = error.file().filter(|_| error.io_error().is_some());
        let Some(Ok(inside)) = inside.map(|path| path.strip_prefix(partial)) else {
            return error;
        };
        let shown = match inside.strip_prefix("view") {
            Ok(file) if file != Path::new("") => self.shown.join(file),
            _ => self.shown.clone(),
        };
        error.in_file(shown)
    }

    /// # Errors
    /// If there is something that is not to be overwritten.
    pub(super) fn check_replaceable(&self, overwrite: bool) -> Result<()> {
        if !self.exists() || overwrite {
            return Ok(());
        }
        let list_error = |e| Error::io("list", &self.shown, e);
        match fs::read_dir(&self.path).map_err(list_error)?.next() {
            None => Ok(()),
            Some(_) => {
                let error = self.refuse(Code::NotEmpty, "this directory is not empty");
                let overwrite = Hint::give(OVERWRITE).to("replace it");
                Err(error.with_hint(Hint::text("choose another").or(overwrite)))
            }
        }
    }

    /// The partial directory of what is to take this directory's place.
    pub(super) fn partial_beside(&self) -> PathBuf {
        self.beside(SUFFIX)
    }

    /// A hidden file beside this directory that has its name, and ends with `suffix`.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix).expect("resolve refuses the top directory")
    }

    /// The partial directory of what is to be put into this directory.
    pub(super) fn partial_inside(&self) -> PathBuf {
        self.path.join(SUFFIX)
    }

    pub(super) fn make_parent(&self) -> Result<()> {
        let parent = self.parent();
        fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))
    }

    /// Moves back what a run that was stopped between two renames has left at `previous`.
    pub(super) fn restore(&self, previous: &Path) -> Result<()> {
        if previous.exists() && !self.exists() {
            fs::rename(previous, &self.path)
                .map_err(|e| Error::io("move the previous content back to", &self.path, e))
        } else {
            Ok(())
        }
    }

    /// Moves `staged` to the destination. What was there is at `staged` or `aside` afterwards.
    pub(super) fn replace_with(&self, staged: &Path, aside: &Path, overwrite: bool) -> Result<()> {
        let moved = if self.exists() && overwrite {
            swap_in(staged, &self.path, aside).map(drop)
        } else {
            // Fails if somebody has put something there meanwhile.
            fs::rename(staged, &self.path)
        };
        moved.map_err(|e| Error::io("put the finished view here", &self.shown, e))
    }
}

/// The URL that `out` is, if it is one.
pub(super) fn url(out: &Path) -> Option<String> {
    match Location::from(out) {
        Location::Url(url) => Some(url),
        Location::Local(_) | Location::Open(_) => None,
    }
}

/// The partial directory of what is written to, or into, the directory `out`.
pub(super) fn partial_of(out: &Path, inside: bool) -> Option<PathBuf> {
    if inside {
        Some(out.join(SUFFIX))
    } else {
        beside(&resolve_missing(out).ok()?, SUFFIX)
    }
}

fn beside(path: &Path, suffix: &str) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(suffix);
    Some(path.with_file_name(name))
}

/// Gives `target` the content of `new`, at once where the filesystem can exchange names. Returns
/// where the old content of `target` is then: `new` or `aside`. After a failure everything is as
/// before.
pub(super) fn swap_in(new: &Path, target: &Path, aside: &Path) -> io::Result<PathBuf> {
    let exchanged = if FastPath::Exchange.is_enabled() {
        renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE)
    } else {
        Err(Errno::NOSYS)
    };
    match exchanged {
        Ok(()) => Ok(new.to_owned()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rename_over(new, target, aside)?;
            Ok(aside.to_owned())
        }
        Err(error) => Err(error.into()),
    }
}

/// Moves `target` to `aside` and `new` to `target`.
fn rename_over(new: &Path, target: &Path, aside: &Path) -> io::Result<()> {
    fs::rename(target, aside)?;
    let Err(error) = fs::rename(new, target) else {
        return Ok(());
    };
    fs::rename(aside, target)?;
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories `new` and `target` with a file each, and the name `aside`.
    fn directories(parent: &Path) -> [PathBuf; 3] {
        let [new, target, aside] = ["new", "target", "aside"].map(|name| parent.join(name));
        for path in [&new, &target] {
            fs::create_dir(path).unwrap();
            fs::write(
                path.join("file"),
                path.file_name().unwrap().as_encoded_bytes(),
            )
            .unwrap();
        }
        [new, target, aside]
    }

    fn content(directory: &Path) -> String {
        fs::read_to_string(directory.join("file")).unwrap()
    }

    #[test]
    fn what_is_replaced_is_kept_where_it_is_said_to_be() {
        let parent = tempfile::tempdir().unwrap();
        let [new, target, aside] = directories(parent.path());
        let old = swap_in(&new, &target, &aside).unwrap();
        assert_eq!(content(&target), "new");
        assert_eq!(content(&old), "target");
    }

    #[test]
    fn without_an_exchange_of_names_the_old_is_moved_aside() {
        let parent = tempfile::tempdir().unwrap();
        let [new, target, aside] = directories(parent.path());
        rename_over(&new, &target, &aside).unwrap();
        assert_eq!(content(&target), "new");
        assert_eq!(content(&aside), "target");
        assert!(!new.exists());
    }

    #[test]
    fn the_old_is_moved_back_if_the_new_cannot_be_moved() {
        let parent = tempfile::tempdir().unwrap();
        let [new, target, aside] = directories(parent.path());
        fs::remove_dir_all(&new).unwrap();
        assert!(rename_over(&new, &target, &aside).is_err());
        assert_eq!(content(&target), "target");
        assert!(!aside.exists());
    }
}

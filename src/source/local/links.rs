//! Links that lead out of a source. Whoever may write to a checkpoint could use one to show other
//! users a file that they may not read themselves.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::setting::FOLLOW_SYMLINKS;
use crate::error::{Code, Error, Hint, Result};
use crate::shown::Show;
use crate::source::LocalFile;

/// The directories that a checkpoint may be made of.
#[derive(Debug)]
pub struct Enclosure {
    inside: Vec<PathBuf>,
}

impl Enclosure {
    /// What is below `directories`, links to them resolved. A snapshot of a Hugging Face hub cache
    /// (`REPOSITORY/snapshots/REVISION`) brings its repository, whose blobs its links lead to.
    ///
    /// # Errors
    /// If a directory cannot be resolved.
    pub fn new(directories: &[PathBuf]) -> Result<Self> {
        let mut inside = Vec::new();
        for directory in directories {
            let resolved = resolve(directory)?;
            inside.extend(hub_repository(&resolved).map(Path::to_owned));
            inside.push(resolved);
        }
        Ok(Enclosure { inside })
    }

    /// Checks that `path` does not lead out of here.
    ///
    /// # Errors
    /// If it does, or cannot be resolved.
    pub fn check(&self, path: &Path) -> Result<()> {
        let resolved = resolve(path)?;
        if self.holds(&resolved) {
            return Ok(());
        }
        let problem = format!(
            "this leads out of the source, to {}, which other users would see",
            resolved.shown()
        );
        let error = Error::of_file(Code::LinkOutside, path, problem);
        let follow = Hint::give(FOLLOW_SYMLINKS).to("allow it");
        Err(error.with_hint(Hint::text("put the file itself there").or(follow)))
    }

    /// The same for the file that was planned, which `file`'s path must still lead to.
    ///
    /// # Errors
    /// If it leads out of here or to another file.
    pub fn check_file(&self, file: &LocalFile) -> Result<()> {
        self.check(file.path())?;
        file.check_path()
    }

    /// Whether `path` leads out of here.
    ///
    /// # Errors
    /// If it cannot be resolved.
    pub fn is_left_by(&self, path: &Path) -> Result<bool> {
        Ok(!self.holds(&resolve(path)?))
    }

    fn holds(&self, resolved: &Path) -> bool {
        let mut inside = self.inside.iter();
        inside.any(|inside| resolved.starts_with(inside))
    }
}

fn resolve(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io("resolve", path, e))
}

/// The repository of a hub cache that `directory` is a snapshot in.
fn hub_repository(directory: &Path) -> Option<&Path> {
    let snapshots = directory.parent()?;
    let repository = snapshots.parent()?;
    let is_snapshot = snapshots.file_name()? == "snapshots" && repository.join("blobs").is_dir();
    is_snapshot.then_some(repository)
}

//! A file that a command writes as a whole or not at all.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{anyhow, bail};

use ckptfs::error::in_words;
use ckptfs::outputs::OutputCheck;
use ckptfs::shown::Show;
use ckptfs::source::missing;

/// Where to write, and whether what is there may be replaced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputFile<'a> {
    path: &'a Path,
    overwrite: bool,
}

impl<'a> OutputFile<'a> {
    /// The file `path`, which no input of `check` is touched by.
    ///
    /// # Errors
    /// If it is there and may not be replaced, or is no file.
    pub(crate) fn new(
        path: &'a Path,
        overwrite: bool,
        check: &OutputCheck,
    ) -> anyhow::Result<Self> {
        check.check(path)?;
        let output = OutputFile { path, overwrite };
        match path.metadata() {
            Ok(metadata) if !metadata.is_file() => bail!(
                "{}: this is not a regular file; choose another place",
                path.shown()
            ),
            _ if !overwrite && path.symlink_metadata().is_ok() => Err(output.exists()),
            _ => Ok(output),
        }
    }

    /// Writes `text`, the `what` ("report").
    pub(crate) fn write(self, what: &str, text: &[u8]) -> anyhow::Result<()> {
        // As far as the process lets others at its files.
        const MODE: u32 = 0o666;
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let failed = |error: std::io::Error| {
            let problem = match error.kind() {
                ErrorKind::NotFound => {
                    format!("{}: {}", directory.shown(), missing(directory, "directory"))
                }
                _ => in_words(&error),
            };
            anyhow!("{}: cannot write the {what}: {problem}", self.path.shown())
        };
        let mut new = tempfile::Builder::new()
            .prefix(".ckptfs-")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory)
            .map_err(failed)?;
        new.write_all(text).map_err(failed)?;
        new.as_file().sync_all().map_err(failed)?;
        let named = match self.overwrite {
            true => new.persist(self.path),
            false => new.persist_noclobber(self.path),
        };
        match named {
            Err(e) if e.error.kind() == ErrorKind::AlreadyExists => Err(self.exists()),
            named => named.map(drop).map_err(|e| failed(e.error)),
        }
    }

    fn exists(self) -> anyhow::Error {
        anyhow!(
            "{}: there is such a file already; have it replaced with --overwrite",
            self.path.shown()
        )
    }
}

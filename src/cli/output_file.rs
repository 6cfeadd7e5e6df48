//! A file that a command writes as a whole or not at all.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ckptfs::error::setting::OVERWRITE;
use ckptfs::error::{Code, Error, Hint};
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
            Ok(metadata) if !metadata.is_file() => {
                let error = Error::of_file(Code::WrongFileKind, path, "this is not a regular file");
                Err(error.with_hint("choose another place").into())
            }
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
            if error.kind() != ErrorKind::NotFound {
                return Error::io(format!("write the {what}"), self.path, error);
            }
            let missing = missing(directory, "directory");
            let problem = format!(
                "cannot write the {what}: {}: {}",
                directory.shown(),
                missing.problem()
            );
            let error = Error::of_file(Code::NotFound, self.path, problem);
            match missing.hint() {
                Some(hint) => error.with_hint(hint.clone()),
                None => error,
            }
        };
        let mut new = tempfile::Builder::new()
            .prefix(".ckptfs-")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory)
            .map_err(failed)?;
        new.write_all(text).map_err(failed)?;
        new.as_file().sync_all().map_err(failed)?;
        let named = if self.overwrite {
            new.persist(self.path)
        } else {
            new.persist_noclobber(self.path)
        };
        match named {
            Err(e) if e.error.kind() == ErrorKind::AlreadyExists => Err(self.exists()),
            named => Ok(named.map(drop).map_err(|e| failed(e.error))?),
        }
    }

    fn exists(self) -> anyhow::Error {
        let error = Error::of_file(Code::NotEmpty, self.path, "there is such a file already");
        let overwrite = Hint::give(OVERWRITE).to("replace it");
        error.with_hint(overwrite).into()
    }
}

//! The one error type of the library. Every message names the file, the tensor where there is
//! one, what was found, what was expected, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::shown::{Show, lines};

/// Why a view could not be planned or a byte could not be given.
///
/// Cloneable, because one failed computation may have several readers waiting for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("{}: cannot {action}: {}", path.shown(), in_words(cause))]
    Io {
        /// What was tried, as a verb phrase ("open", "read 512 bytes at offset 8").
        action: String,
        path: PathBuf,
        cause: Arc<io::Error>,
    },
    /// A file or directory of a checkpoint is not what its format demands.
    #[error("{}: {}", path.shown(), lines(problem))]
    Checkpoint { path: PathBuf, problem: String },
    /// A tensor is not what its checkpoint or the view demands of it.
    #[error("{}: tensor {}: {}", path.shown(), tensor.shown(), lines(problem))]
    Tensor {
        path: PathBuf,
        tensor: String,
        problem: String,
    },
    /// The request cannot be carried out as it stands.
    #[error("{}", lines(.0))]
    Request(String),
    /// A source is no longer the file that the view was planned from.
    #[error("{}: the file changed after the view was planned: {what}; mount the view again to use the new file", path.shown())]
    SourceChanged { path: PathBuf, what: String },
    /// A tensor that is to be quantized holds NaN or an infinity.
    ///
    /// Rows count over all leading dimensions: row `r` of a `[E, R, C]` tensor is
    /// `[r / R, r % R, ..]`.
    #[error(
        "tensor {}: {value} at row {row}, column {column} cannot be quantized; repair the source or leave this tensor out of the selection", tensor.shown()
    )]
    NonFinite {
        tensor: String,
        row: u64,
        column: u64,
        value: f32,
    },
    /// The system gives this process no memory for a large buffer.
    #[error(
        "there is no memory for a buffer of {bytes} bytes; give this process more, or fewer threads or a smaller cache"
    )]
    OutOfMemory { bytes: usize },
}

/// Shorthand for results with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operating system error met while doing `action` ("open", "list") to `path`.
    pub fn io(action: impl Into<String>, path: impl AsRef<Path>, cause: io::Error) -> Self {
        Error::Io {
            action: action.into(),
            path: path.as_ref().to_owned(),
            cause: Arc::new(cause),
        }
    }

    /// A checkpoint file that is not what its format demands.
    pub fn checkpoint(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Checkpoint {
            path: path.as_ref().to_owned(),
            problem: problem.into(),
        }
    }

    /// A tensor that is not what its checkpoint or the view demands.
    pub fn tensor(
        path: impl AsRef<Path>,
        tensor: impl AsRef<str>,
        problem: impl Into<String>,
    ) -> Self {
        Error::Tensor {
            path: path.as_ref().to_owned(),
            tensor: tensor.as_ref().to_owned(),
            problem: problem.into(),
        }
    }
}

/// What the operating system refused, and what to do about it.
pub fn in_words(cause: &io::Error) -> String {
    use io::ErrorKind::{
        FileTooLarge, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    let words = match (cause.kind(), Errno::from_io_error(cause)) {
        (_, Some(Errno::MFILE)) => {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            return format!(
                "this process may have {limit} files open at once; raise the limit (ulimit -n)"
            );
        }
        (_, Some(Errno::NFILE)) => {
            "this machine has as many files open as it may; close some, or raise fs.file-max"
        }
        (_, Some(Errno::NOTCONN)) => {
            "it is in a mount whose process ended; unmount it first (ckptfs unmount)"
        }
        (_, Some(Errno::LOOP)) => "its links lead in a circle; repair them",
        (NotFound, _) => "there is no such file or directory",
        (PermissionDenied, _) => {
            "permission denied; change the permissions, or run as a user who has them"
        }
        (StorageFull, _) => "no space is left on the filesystem; make room, or choose another",
        (QuotaExceeded, _) => {
            "the quota of this user is used up; make room, or choose another place"
        }
        (ReadOnlyFilesystem, _) => "the filesystem is read-only; choose another place",
        (FileTooLarge, _) => {
            "the file would be larger than this process or the filesystem may have one; raise the limit (ulimit -f), or choose another place"
        }
        (NotADirectory, _) => "a file is where a directory is wanted",
        (IsADirectory, _) => "it is a directory, and a file is wanted",
        _ => return lines(&cause.to_string()).into_owned(),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_said_with_what_to_do() {
        for (errno, cure) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::NOSPC, "make room"),
            (Errno::DQUOT, "make room"),
            (Errno::FBIG, "ulimit -f"),
            (Errno::ROFS, "choose another place"),
            (Errno::ACCESS, "change the permissions"),
            (Errno::NOTCONN, "ckptfs unmount"),
        ] {
            let text = in_words(&errno.into());
            assert!(text.contains(cure) && !text.contains("os error"), "{text}");
        }
        let other = in_words(&Errno::IO.into());
        assert!(other.contains("os error 5"), "{other}");
    }
}

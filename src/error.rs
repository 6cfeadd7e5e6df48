//! The one error type of the library. Every message names the file, the tensor where there is
//! one, what was found, what was expected, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a view could not be planned or a byte could not be given.
///
/// Cloneable, because one failed computation may have several readers waiting for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("{}: cannot {action}: {cause}{}", path.display(), cure(cause))]
    Io {
        /// What was tried, as a verb phrase ("open", "read 512 bytes at offset 8").
        action: String,
        path: PathBuf,
        cause: Arc<io::Error>,
    },
    /// A file or directory of a checkpoint is not what its format demands.
    #[error("{}: {problem}", path.display())]
    Checkpoint { path: PathBuf, problem: String },
    /// A tensor is not what its checkpoint or the view demands of it.
    #[error("{}: tensor {tensor}: {problem}", path.display())]
    Tensor {
        path: PathBuf,
        tensor: String,
        problem: String,
    },
    /// The request cannot be carried out as it stands.
    #[error("{0}")]
    Request(String),
    /// A source is no longer the file that the view was planned from.
    #[error("{}: the file changed after the view was planned: {what}; mount the view again to use the new file", path.display())]
    SourceChanged { path: PathBuf, what: String },
    /// A tensor that is to be quantized holds NaN or an infinity.
    ///
    /// Rows count over all leading dimensions: row `r` of a `[E, R, C]` tensor is
    /// `[r / R, r % R, ..]`.
    #[error(
        "tensor {tensor}: {value} at row {row}, column {column} cannot be quantized; repair the source or leave this tensor out of the selection"
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

/// What helps against `cause`, where that is known.
fn cure(cause: &io::Error) -> String {
    use rustix::io::Errno;
    use rustix::process::{Resource, getrlimit};
    match Errno::from_io_error(cause) {
        Some(Errno::MFILE) => {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            format!("; this process may have {limit} files open at once: raise the limit (ulimit -n)")
        }
        Some(Errno::NFILE) => "; the system has as many files open as it may: raise fs.file-max (sysctl), or end what has them open".to_owned(),
        _ => String::new(),
    }
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

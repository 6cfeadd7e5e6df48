//! What the operating system refuses, in words.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::code::Code;
use crate::shown::lines;

/// What the operating system refused, and what to do about it, if that is known.
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) problem: String,
    pub(super) hint: Option<&'static str>,
}

impl From<&io::Error> for Refusal {
    fn from(cause: &io::Error) -> Self {
        use io::ErrorKind::{
            FileTooLarge, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
            ReadOnlyFilesystem, StorageFull,
        };
        const RAISE_FILE_LIMIT: &str = "raise the limit (ulimit -n)";
        let (code, problem, hint) = match (cause.kind(), Errno::from_io_error(cause)) {
            (_, Some(Errno::MFILE)) => {
                let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
                return Refusal {
                    code: Code::TooManyOpenFiles,
                    problem: format!("this process may have {limit} files open at once"),
                    hint: Some(RAISE_FILE_LIMIT),
                };
            }
            (_, Some(Errno::NFILE)) => (
                Code::TooManyOpenFiles,
                "this machine has as many files open as it may",
                Some("close some, or raise fs.file-max"),
            ),
            (_, Some(Errno::NOTCONN)) => (
                Code::DeadMount,
                "it is in a mount whose process ended",
                Some("unmount it first (ckptfs unmount)"),
            ),
            (_, Some(Errno::LOOP)) => (
                Code::NotFound,
                "its links form a circle",
                Some("repair them"),
            ),
            (NotFound, _) => (Code::NotFound, "there is no such file or directory", None),
            (PermissionDenied, _) => (
                Code::PermissionDenied,
                "permission denied",
                Some("change the permissions, or run as a user who has them"),
            ),
            (StorageFull, _) => (
                Code::NoSpace,
                "no space is left on the filesystem",
                Some("make room, or choose another"),
            ),
            (QuotaExceeded, _) => (
                Code::NoSpace,
                "the quota of this user is used up",
                Some("make room, or choose another place"),
            ),
            (ReadOnlyFilesystem, _) => (
                Code::ReadOnly,
                "the filesystem is read-only",
                Some("choose another place"),
            ),
            (FileTooLarge, _) => (
                Code::Io,
                "the file would be larger than this process or the filesystem allows",
                Some("raise the limit (ulimit -f), or choose another place"),
            ),
            (NotADirectory, _) => (
                Code::WrongFileKind,
                "a file is where a directory is wanted",
                None,
            ),
            (IsADirectory, _) => (
                Code::WrongFileKind,
                "it is a directory, and a file is wanted",
                None,
            ),
            _ => {
                return Refusal {
                    code: Code::Io,
                    problem: lines(&cause.to_string()).into_owned(),
                    hint: None,
                };
            }
        };
        Refusal {
            code,
            problem: problem.to_owned(),
            hint,
        }
    }
}

/// What the operating system refused, and what to do about it.
pub fn in_words(cause: &io::Error) -> String {
    let Refusal { problem, hint, .. } = Refusal::from(cause);
    match hint {
        Some(hint) => format!("{problem}; {hint}"),
        None => problem,
    }
}

/// Whether what the operating system refused may work later: a disk or a server did not answer.
pub(super) fn may_pass(cause: &io::Error) -> bool {
    let errno = Errno::from_io_error(cause);
    errno.is_some_and(|errno| {
        matches!(
            errno,
            Errno::IO | Errno::STALE | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::HOSTUNREACH
        )
    })
}

/// The code of what the operating system refused.
impl From<&io::Error> for Code {
    fn from(cause: &io::Error) -> Self {
        Refusal::from(cause).code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_said_with_what_to_do() {
        for (errno, code, cure) in [
            (Errno::MFILE, Code::TooManyOpenFiles, "ulimit -n"),
            (Errno::NFILE, Code::TooManyOpenFiles, "fs.file-max"),
            (Errno::NOSPC, Code::NoSpace, "make room"),
            (Errno::DQUOT, Code::NoSpace, "make room"),
            (Errno::FBIG, Code::Io, "ulimit -f"),
            (Errno::ROFS, Code::ReadOnly, "choose another place"),
            (
                Errno::ACCESS,
                Code::PermissionDenied,
                "change the permissions",
            ),
            (Errno::NOTCONN, Code::DeadMount, "ckptfs unmount"),
        ] {
            let text = in_words(&errno.into());
            assert!(text.contains(cure) && !text.contains("os error"), "{text}");
            assert_eq!(Refusal::from(&errno.into()).code, code);
        }
        assert!(may_pass(&Errno::IO.into()) && !may_pass(&Errno::FBIG.into()));
        let other = in_words(&Errno::IO.into());
        assert!(other.contains("os error 5"), "{other}");
    }
}

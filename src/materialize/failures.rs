//! Why a run ends early.

use crate::error::Error;

pub(super) fn interrupted() -> Error {
    Error::Request("interrupted; the destination is as it was".to_owned())
}

/// Whether `error` says that the disk, or what this user may take of it, is full.
pub(super) fn is_out_of_space(error: &Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        Error::Io { cause, .. } => matches!(cause.kind(), StorageFull | QuotaExceeded),
        _ => false,
    }
}

//! Why a run ends early.

use crate::error::{Code, Error};

pub(super) fn interrupted() -> Error {
    Error::new(
        Code::Interrupted,
        "interrupted; the destination is as it was",
    )
}

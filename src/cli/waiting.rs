//! What a command reads may be in a mount that does not answer: its user learns what it waits for.

use ckptfs::shown::Show;
use ckptfs::source::Location;

use crate::cli::messages::flag;
use crate::cli::mounted::check_answers;

/// Says so if `source` is in a mount of ours that does not answer. It may only be busy, so the
/// command waits all the same.
pub(crate) fn note_silent_mount(source: impl Into<Location>) {
    if let Some(path) = source.into().local()
        && let Err(error) = check_answers(path)
    {
        eprintln!(
            "note[{}]: waiting for an answer: {}",
            error.code(),
            error.spelled(flag).shown()
        );
    }
}

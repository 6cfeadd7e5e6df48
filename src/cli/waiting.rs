//! What a command reads may be in a mount that does not answer: its user learns what it waits for.

use std::path::Path;

use ckptfs::fuse::check_answers;
use ckptfs::shown::Show;

use crate::cli::messages::flag;

/// Says so if `path` leads into a mount of ours that does not answer. It may only be
/// busy, so the command waits all the same.
pub(crate) fn note_silent_mount(path: &Path) {
    if let Err(error) = check_answers(path) {
        eprintln!(
            "note: waiting for an answer: {}",
            error.spelled(flag).shown()
        );
    }
}

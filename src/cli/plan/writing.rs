//! What writing a view to a directory would take.

use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use serde::Serialize;

use ckptfs::error::Result;
use ckptfs::materialize::{Outlook, persist_outlook};
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::text::counted;

/// A directory that the view may be written to.
#[derive(Debug)]
pub(crate) struct Writing {
    directory: PathBuf,
    outlook: Outlook,
}

impl Writing {
    /// What `materialize --out DIRECTORY` and `mount --persist DIRECTORY` would write of `plan`, the
    /// plan of `request`.
    ///
    /// # Errors
    /// If the directory is refused.
    pub(crate) fn new(request: &ViewRequest, plan: &Plan, directory: &Path) -> Result<Self> {
        Ok(Writing {
            directory: directory.to_owned(),
            outlook: persist_outlook(plan, &request.inputs(), directory)?,
        })
    }

    pub(super) fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    /// For the plan.
    pub(super) fn lines(&self) -> String {
        writing_lines(&self.outlook)
    }
}

/// The same for programs.
#[derive(Debug, Serialize)]
pub(super) struct WritingJson<'a> {
    directory: &'a Path,
    /// All files, and those that are complete there already.
    files: usize,
    bytes: u64,
    complete_files: usize,
    complete_bytes: u64,
    /// Bytes that are written; the filesystem may share `shared_bytes` more with the sources.
    written_bytes: u64,
    shared_bytes: u64,
    /// Bytes of blocks that `written_bytes` take, and free bytes; null if the filesystem does not report them.
    needed_bytes: u64,
    available_bytes: Option<u64>,
}

impl<'a> WritingJson<'a> {
    pub(super) fn new(writing: &'a Writing) -> Self {
        let Writing { directory, outlook } = writing;
        WritingJson {
            directory,
            files: outlook.files,
            bytes: outlook.bytes,
            complete_files: outlook.kept,
            complete_bytes: outlook.kept_bytes,
            written_bytes: outlook.written_bytes,
            shared_bytes: outlook.shared_bytes,
            needed_bytes: outlook.needed,
            available_bytes: outlook.available,
        }
    }
}

/// What becomes of the files of a directory, and the space that there is for them.
pub(crate) fn writing_lines(outlook: &Outlook) -> String {
    let mut text = format!(
        "write  {}: {} to be written",
        counted(outlook.files, "file"),
        BinaryBytes(outlook.written_bytes)
    );
    if outlook.kept > 0 {
        let kept = BinaryBytes(outlook.kept_bytes);
        text += &format!(", {} complete already ({kept})", outlook.kept);
    }
    if outlook.linked > 0 {
        let linked = BinaryBytes(outlook.linked_bytes);
        text += &format!(", {} ({linked})", counted(outlook.linked, "hard link"));
    }
    if outlook.shared_bytes > 0 {
        let shared = BinaryBytes(outlook.shared_bytes);
        text += &format!(", {shared} that the filesystem may share with the sources");
    }
    text += &match outlook.available {
        Some(available) => format!("\nspace  {} available\n", BinaryBytes(available)),
        None => "\nspace  unknown: the filesystem does not report it\n".to_owned(),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_not_written_is_writing_lines() {
        let outlook = Outlook {
            files: 9,
            bytes: 10 << 30,
            kept: 1,
            kept_bytes: 1 << 30,
            linked: 2,
            linked_bytes: 2 << 30,
            shared_bytes: 3 << 30,
            written_bytes: 4 << 30,
            needed: 4 << 30,
            available: Some(5 << 30),
        };
        assert_eq!(
            writing_lines(&outlook),
            "write  9 files: 4.00 GiB to be written, 1 complete already (1.00 GiB), 2 hard links (2.00 GiB), 3.00 GiB that the filesystem may share with the sources\nspace  5.00 GiB available\n"
        );
    }
}

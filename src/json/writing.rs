//! What writing a view to a directory would take.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Result;
use crate::materialize::{Outlook, persist_outlook};
use crate::recipe::{Plan, ViewRequest};

/// A directory that the view may be written to.
#[derive(Debug)]
pub struct Writing {
    directory: PathBuf,
    outlook: Outlook,
}

impl Writing {
    /// What `materialize --out DIRECTORY` and `mount --persist DIRECTORY` would write of `plan`, the
    /// plan of `request`.
    ///
    /// # Errors
    /// If the directory is refused.
    pub fn new(request: &ViewRequest, plan: &Plan, directory: &Path) -> Result<Self> {
        Ok(Writing {
            directory: directory.to_owned(),
            outlook: persist_outlook(plan, &request.inputs(), directory)?,
        })
    }

    /// What it would take.
    pub fn outlook(&self) -> &Outlook {
        &self.outlook
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

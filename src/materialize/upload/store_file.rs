//! The files of a view, as objects.

use std::collections::HashSet;

use crate::error::{Code, Error, Result};
use crate::materialize::directory;
use crate::materialize::new_file::NewFile;
use crate::materialize::options::Share;
use crate::materialize::upload::parts;
use crate::recipe::Plan;

/// A file of the view, with the name that it has below the prefix.
#[derive(Debug)]
pub(super) struct StoreFile<'a> {
    pub(super) file: NewFile<'a>,
    pub(super) name: String,
}

impl StoreFile<'_> {
    pub(super) fn len(&self) -> u64 {
        self.file.content.len()
    }

    /// Whether it is recorded when it is complete: the next run does not send it again.
    pub(super) fn is_recorded(&self) -> bool {
        self.file.is_shard() || self.len() > parts::MIN_PART
    }
}

/// All files of the view.
///
/// # Errors
/// If one has a name that no object can have.
pub(super) fn files(plan: &Plan) -> Result<Vec<StoreFile<'_>>> {
    let files = NewFile::all(plan).into_iter().map(|file| {
        let Some(name) = file.path.to_str().map(str::to_owned) else {
            let problem = "names of objects are UTF-8, and this is not";
            return Err(Error::of_file(Code::BadDestination, &file.path, problem));
        };
        Ok(StoreFile { file, name })
    });
    files.collect()
}

/// Those of `files` that a run with this share sends.
pub(super) fn own_files<'a, 'b>(
    files: &'a [StoreFile<'b>],
    plan: &Plan,
    share: Share,
) -> Vec<&'a StoreFile<'b>> {
    let own = directory::files(plan, share);
    let own: HashSet<_> = own.iter().map(|file| file.entry).collect();
    let is_own = |file: &&StoreFile| own.contains(&file.file.entry);
    files.iter().filter(is_own).collect()
}

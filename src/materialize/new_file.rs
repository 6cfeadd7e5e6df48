//! The files of a view that are to be written.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::catalog::Extents;
use crate::recipe::Plan;
use crate::source::{Attributes, LocalFile};
use crate::view::EntryId;

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    pub(super) entry: EntryId,
    /// Relative to the top of the view.
    pub(super) path: PathBuf,
    pub(super) content: &'a Extents,
    pub(super) attributes: Attributes,
    is_shard: bool,
}

impl<'a> NewFile<'a> {
    /// Every file of the view.
    pub(super) fn all(plan: &'a Plan) -> Vec<Self> {
        let shards: HashSet<EntryId> = plan.shards.iter().map(|shard| shard.entry).collect();
        let files = plan.view.files();
        files
            .map(|(id, path, content)| NewFile {
                entry: id,
                path,
                content,
                attributes: plan.view.get(id).expect("an id of the view").attributes,
                is_shard: shards.contains(&id),
            })
            .collect()
    }

    pub(super) fn is_shard(&self) -> bool {
        self.is_shard
    }

    /// The local file that a hard link could be made to instead of writing this one.
    pub(super) fn linkable(&self) -> Option<&'a LocalFile> {
        let source = self.content.whole_file().filter(|_| self.is_shard)?;
        source.as_local()
    }
}

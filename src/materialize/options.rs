//! What can be asked of a run, and what it says when it is done.

use std::path::PathBuf;
use std::thread;

use crate::error::Warning;
use crate::materialize::parts::Part;

/// How to write a view.
#[derive(Debug, Clone)]
pub struct Options {
    /// Link shards that are whole source files instead of copying them. A link shares its bytes
    /// and its mode with the source.
    pub hardlink: bool,
    /// Replace what the destination holds.
    pub overwrite: bool,
    /// Give up what a stopped run of another request has left for this destination.
    pub start_again: bool,
    /// Put only shards and index into an existing directory.
    pub weights_only: bool,
    /// Refuse to begin where the files take more than there is free space.
    pub check_space: bool,
    /// Write the checksums of all files beside them. Not of weights alone.
    pub sha256: bool,
    /// How much of the view to write. Weights alone are written as a whole.
    pub share: Share,
    /// Threads that write.
    pub jobs: usize,
    /// Where facts about whole tensors are kept from one run to the next.
    pub facts_cache: Option<PathBuf>,
    /// Read past the page cache what is not in it.
    pub direct_sources: bool,
}

impl Default for Options {
    /// Copies into a new directory with a thread for each CPU.
    fn default() -> Self {
        Options {
            hardlink: false,
            overwrite: false,
            start_again: true,
            weights_only: false,
            check_space: true,
            sha256: false,
            share: Share::Whole,
            jobs: thread::available_parallelism().map_or(1, usize::from),
            facts_cache: None,
            direct_sources: false,
        }
    }
}

/// How much of a view one run writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All of it.
    #[default]
    Whole,
    /// Some of the shards. They wait in the partial directory for the others.
    Part(Part),
    /// All that is no shard, once all parts are complete; the view then takes its place.
    Finish,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Files in the destination that are from the view, and their bytes.
    pub files: usize,
    pub bytes: u64,
    /// Those of the files that are links to a source, and their bytes.
    pub linked: usize,
    pub linked_bytes: u64,
    /// Those of the files that earlier runs, or parts, have written, and their bytes.
    pub kept: usize,
    pub kept_bytes: u64,
    /// Files that were to be linked but had to be copied.
    pub copied_instead: usize,
    /// What is probably not what was meant.
    pub warnings: Vec<Warning>,
}

//! Details that a plan is shown with.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::plan::writing::Writing;

/// What is shown with a plan.
#[derive(Debug, Default)]
pub(crate) struct Details {
    /// The directories that the view reads from.
    pub(crate) directories: Vec<PathBuf>,
    /// Where the view may be written to.
    pub(crate) writing: Option<Writing>,
    /// What computing a view in GGUF takes, when all of it is first read.
    pub(crate) first_load: Option<Duration>,
    /// For people: show no tensors and files.
    pub(crate) only_summary: bool,
    /// For programs: the sources and steps of each tensor.
    pub(crate) provenance: bool,
}

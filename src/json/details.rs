//! What a plan is shown with.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Spelling, as_keys};
use crate::inspect::NonFiniteValues;
use crate::json::writing::Writing;

/// What a plan is shown with.
#[derive(Debug)]
pub struct Details<'a> {
    /// The directories that the view reads from.
    pub directories: Vec<PathBuf>,
    /// Where the view may be written to.
    pub writing: Option<Writing>,
    /// What computing a view in GGUF takes, when all of it is first read.
    pub first_load: Option<Duration>,
    /// The sources and steps of each tensor.
    pub provenance: bool,
    /// What checking the values found, if that was done.
    pub non_finite: Option<&'a [NonFiniteValues]>,
    /// How warnings have settings of the request.
    pub spelling: Spelling,
}

impl Default for Details<'_> {
    fn default() -> Self {
        Details {
            directories: Vec::new(),
            writing: None,
            first_load: None,
            provenance: false,
            non_finite: None,
            spelling: as_keys,
        }
    }
}

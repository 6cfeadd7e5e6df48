//! Places in a recipe.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::shown::Show;

/// A place in a recipe: `merge.yml:3:5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line, column } = self;
        write!(f, "{}:{line}:{column}", file.shown())
    }
}

//! In which of two views a tensor or file is.

use serde::Serialize;

/// Whether a tensor or file is in both views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Only the first view has it.
    Removed,
    /// Only the second view has it.
    Added,
    /// Both have it, and it is not the same.
    Changed,
}

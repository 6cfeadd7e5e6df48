//! What a view is wanted for.

/// What a view is wanted for, as far as it matters for how sources are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Sources are read once.
    Job,
    /// They are read again and again.
    #[cfg_attr(not(feature = "fuse"), allow(dead_code))]
    Mount,
    /// What planning learns of them is written to a pin file.
    #[cfg_attr(not(feature = "remote"), allow(dead_code))]
    Pin,
}

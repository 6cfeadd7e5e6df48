//! Panels: the right factor is read in runs of columns.

/// Columns of the right factor that stand together (see [`super::pack_right`]).
pub const PANEL: usize = 32;

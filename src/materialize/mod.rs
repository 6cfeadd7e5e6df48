//! Writing a view to disk.

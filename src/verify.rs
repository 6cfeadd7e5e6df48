//! Checking a directory's structure, or its bytes against a view.

//! `verify`: whether a directory is a valid checkpoint, the view that it should be, and as its checksums say.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/directory.rs"]
mod directory;

mod against_view;
#[cfg(feature = "cli")]
mod command;
mod sha256;
mod structure;

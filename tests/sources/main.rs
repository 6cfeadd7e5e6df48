//! Checkpoints that views are made of: what is taken from them, and what is wrong with them.

#[path = "../common/mod.rs"]
mod common;

mod aux_files;
mod blobs;
mod checkpoints;
#[cfg(feature = "cli")]
mod descriptors;
mod direct;
mod errors;
mod file_modes;
mod hostile_input;
#[cfg(feature = "remote")]
mod remote;

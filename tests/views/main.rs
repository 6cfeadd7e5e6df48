//! Which tensors a view has, under which names, in which shards, and where they come from.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod described;
mod filter;
mod graft;
mod graft_refusals;
mod patch;
mod patch_warnings;
mod properties;
mod provenance;
mod rename;
mod renumber;
mod repack;
mod single_files;
mod skip_lists;

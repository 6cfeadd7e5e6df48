//! Recipes: what their text says, what that comes to for each tensor, and what is wrong where.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod documented;
mod documents;
#[cfg(feature = "cli")]
mod emit_command;
mod emitted;
mod errors;
mod experts;
mod files;
mod fixture;
mod inputs;
mod parameters;
mod planning;
mod references;
mod view_section;

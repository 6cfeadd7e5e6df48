//! Embedding and head: tied, untied, and with another number of rows.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod configs;
mod fixture;
#[cfg(feature = "fuse")]
mod mount;
mod order;
mod refusals;
mod resizing;
mod tying;

//! `serve`: the bytes of a view over HTTP, what clients of the Hub ask for, and what no client can do to it.

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod changes;
mod client;
#[cfg(feature = "cli")]
mod command;
mod fixture;
mod hostile;
mod hub;
mod limits;
mod parsing;

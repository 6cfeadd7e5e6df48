//! Edits of config.json and other files beside the weights: what they change, and what they leave.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod files;
mod fixture;
#[cfg(feature = "fuse")]
mod mount;
mod order;
mod promotion;
mod properties;
mod refusals;
mod texts;
mod truth;

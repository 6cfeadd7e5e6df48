//! Views in one dtype: `--dtype`.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod config;
mod fixture;
mod kernels;
mod numbers;
mod refusals;

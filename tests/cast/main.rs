//! Views in other dtypes: `--dtype`, `--cast`.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod config;
mod fixture;
mod kernels;
mod numbers;
mod refusals;
mod single;

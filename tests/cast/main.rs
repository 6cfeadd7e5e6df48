//! Views in other dtypes: `--dtype`, `--cast`.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod fixture;
mod kernels;
mod numbers;
mod refusals;
mod single;

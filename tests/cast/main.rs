//! Views in one dtype: `--dtype`.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod fixture;
mod kernels;
mod numbers;
mod refusals;

//! LoRA adapters merged into a base: what every element becomes, and what is refused.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod embeddings;
mod experts;
mod fixture;
mod kernels;
mod layers;
mod ranges;
mod refusals;
mod renaming;
mod settings;
mod single_experts;
mod storage;
mod tokens;
mod tying;

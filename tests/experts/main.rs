//! The two forms of experts: fused into two tensors a layer, or one tensor per expert and
//! projection.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod command;
mod families;
mod fixture;
mod forms;
mod fp8;
mod ranges;
mod refusals;
mod scopes;
mod shards;

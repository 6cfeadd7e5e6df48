//! Bare numeric loops over slices. They know nothing of tensors, files or operators.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub mod cast;
mod cpu;
pub mod float4;
pub mod float8;
pub mod fp8;
pub mod gather;
pub mod ggml;
pub mod integer;
pub mod lanes;
pub mod low_rank;
pub mod microscaling;
pub(crate) mod numbers;
pub mod table;

pub use cpu::{CpuPath, Loop};

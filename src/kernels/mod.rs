//! Bare numeric loops over slices. They know nothing of tensors, files or operators.

mod cpu;
pub mod fp8;
pub mod lanes;

pub use cpu::{CpuPath, Loop};

//! Bare numeric loops over slices. They know nothing of tensors, files or operators.

pub mod fp8;
pub mod low_rank;

//! Containers: how tensors are packed in files.

pub mod safetensors;

//! Packing tensors into files: what a container's writer is given, and what it makes.

use crate::tensor::{Dtype, Name, Shape};

/// A tensor that is to be packed into a file.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a Name,
    pub dtype: Dtype,
    pub shape: &'a Shape,
    /// Length in bytes.
    pub len: u64,
}

/// A part of a file that tensors are packed into.
#[derive(Debug)]
pub enum Part {
    /// Bytes of the container itself, such as a header.
    Made(Vec<u8>),
    /// All bytes of the tensor at this position among those that are packed.
    Tensor(usize),
}

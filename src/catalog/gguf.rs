//! A catalog as GGUF: what files of llama.cpp hold, before it is laid out in files.

use crate::catalog::Tensor;
use crate::format::gguf::{Keys, TensorType};
use crate::tensor::{Name, Shape};

/// Keys and tensors, in the order of files.
#[derive(Debug)]
pub struct GgufModel {
    /// What the names of files begin with.
    pub stem: String,
    pub keys: Keys,
    pub tensors: Vec<GgufTensor>,
    /// The maximum number of tensor bytes in a file; `None` is no limit.
    pub split_bytes: Option<u64>,
}

/// A tensor of such a file.
#[derive(Debug)]
pub struct GgufTensor {
    pub name: Name,
    pub tensor_type: TensorType,
    /// Of its elements, the slowest dimension first.
    pub shape: Shape,
    /// Its bytes: numbers of a dtype, or U8 where they are blocks.
    pub tensor: Tensor,
}

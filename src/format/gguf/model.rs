//! What GGUF files say of a model beyond where its tensors are.

use std::sync::Arc;

use indexmap::IndexMap;

use super::header::Keys;
use super::tensor_type::TensorType;
use crate::source::Blob;
use crate::tensor::{Name, Shape};

/// What GGUF files say of a model beyond where its tensors are.
#[derive(Debug)]
pub struct Model {
    /// The metadata of the first file.
    pub keys: Keys,
    /// Type and shape of each tensor. [`StoredTensor`](crate::format::StoredTensor) has those that are no plain numbers as rows of bytes.
    pub types: IndexMap<Name, PlacedType>,
    /// The first file.
    pub file: Arc<dyn Blob>,
}

/// How a tensor is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedType {
    pub tensor_type: TensorType,
    /// The slowest dimension first, in elements.
    pub shape: Shape,
}

//! What is in front of the data: metadata, and where each tensor is.

use indexmap::IndexMap;

use super::tensor_type::TensorType;
use super::value::Value;
use crate::tensor::{Name, Shape};

/// Metadata, in the order of the file.
pub type Keys = IndexMap<String, Value>;

/// The header of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// 2 or 3, which say the same.
    pub version: u32,
    pub keys: Keys,
    /// In the order of the file, which is that of their data.
    pub tensors: IndexMap<Name, TensorInfo>,
    /// Of the data and of each tensor in it, in bytes.
    pub alignment: u64,
    /// Where the data starts in the file.
    pub data_start: u64,
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub tensor_type: TensorType,
    /// The slowest dimension first, as everywhere but in the file.
    pub shape: Shape,
    /// Offset of the first byte from the start of the file.
    pub offset: u64,
    /// Length in bytes, without padding.
    pub len: u64,
}

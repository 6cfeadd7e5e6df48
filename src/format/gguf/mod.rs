//! GGUF, the container of llama.cpp: metadata and tensors in one file, or in split files.
//!
//! | part | content, little-endian |
//! |---|---|
//! | start | `GGUF`, u32 version (2 or 3), u64 number of tensors, u64 number of keys |
//! | metadata | each key: string, u32 type, value |
//! | tensor infos | each: name, u32 number of dimensions, u64 each with the **fastest first**, u32 type, u64 offset from the start of the data |
//! | padding | zeros up to a multiple of `general.alignment` (32 without it) |
//! | data | tensors in the order of their infos, each padded likewise |
//!
//! A string is a u64 length and as many bytes of UTF-8. An array is a u32 type, a u64 count and its
//! elements, which are no arrays. Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod checkpoint;
mod cursor;
mod header;
mod model;
mod reading;
mod split;
mod tensor_type;
mod value;
mod value_type;
mod writing;

pub(in crate::format) use checkpoint::{is_shard, read, read_file, stored_tensors};
pub(in crate::format) use cursor::Cursor;
pub use header::{Header, Keys, TensorInfo};
pub use model::{Model, PlacedType};
pub use reading::read as read_header;
pub use split::{SplitName, split_name};
pub use tensor_type::TensorType;
pub use value::{Array, Number, Numbers, Strings, Value};
pub use value_type::ValueType;
pub use writing::{NewTensor, pack};

/// The first bytes of a file.
pub(in crate::format) const MAGIC: &[u8; 4] = b"GGUF";
/// The key of the alignment of tensor data in bytes, a power of two.
pub const ALIGNMENT_KEY: &str = "general.alignment";
/// The alignment without that key.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The longest name of a tensor in bytes: ggml keeps it in 64, with a zero after it.
pub(in crate::format) const MAX_NAME_BYTES: usize = 63;
/// The most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 4;

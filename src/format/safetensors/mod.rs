//! Safetensors checkpoints in Hugging Face layout.

mod header;
mod index;
mod reading;
pub(crate) mod writing;

pub use header::{
    MAX_HEADER_BYTES, StoredTensor, data_start, parse as parse_header, read as read_header,
};
pub use index::{INDEX_FILE, Index, SINGLE_FILE, WeightMap};
pub use reading::{Checkpoint, Shard, tensor_names};

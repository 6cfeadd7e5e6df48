//! Safetensors checkpoints in Hugging Face layout: `model.safetensors`, or shards and
//! `model.safetensors.index.json`.
//!
//! | file | about |
//! |---|---|
//! | `header.rs` | the header of a file, read |
//! | `names.rs` | how files are called |
//! | `writing.rs` | tensors, packed into a file |

mod header;
mod names;
mod writing;

pub(super) use header::read_with_metadata;
pub use header::{data_start, parse as parse_header, read as read_header};
pub use names::{INDEX_FILE, SINGLE_FILE, is_standard_name};
pub(super) use names::{is_shard, standard_names};
pub(super) use writing::pack;

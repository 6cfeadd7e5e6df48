//! Safetensors checkpoints in Hugging Face layout: `model.safetensors`, or shards and
//! `model.safetensors.index.json`.
//!
//! | file | about |
//! |---|---|
//! | `header.rs` | the header of a file, read |
//! | `index.rs` | the index, read and written |
//! | `names.rs` | how files are called |
//! | `reading.rs` | a directory, read as a checkpoint |
//! | `text.rs` | strings in the JSON of both |
//! | `writing.rs` | tensors, packed into a file |

mod copies;
mod header;
mod index;
mod names;
mod reading;
mod text;
mod writing;

pub use header::{data_start, parse as parse_header, read as read_header};
pub(super) use index::text as index_text;
pub use index::{Index, WeightMap};
pub use names::{INDEX_FILE, SINGLE_FILE, is_standard_name};
pub(super) use names::{is_shard, standard_names};
pub(super) use reading::{indexed_names, is_of_another_format, read, read_file};
pub(super) use writing::pack;

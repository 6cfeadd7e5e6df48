//! Opening a checkpoint directory: index, shards' headers, and everything that is not a weight.
//! Nothing here reads a tensor's bytes.

use std::borrow::Cow;

use serde::Deserialize;

mod aux_files;
mod checkpoint;
mod direct;
mod file;
mod header;
mod index;
mod links;

pub use aux_files::{AuxEntry, MOUNT_DIRECTORY};
pub use checkpoint::{Checkpoint, Shard, tensor_names};
pub(crate) use direct::BLOCK;
pub use file::{Attributes, SourceFile};
pub use header::{
    MAX_HEADER_BYTES, StoredTensor, data_start, parse as parse_header, read as read_header,
};
pub use index::{INDEX_FILE, Index, SINGLE_FILE, WeightMap};
pub use links::Enclosure;

/// A string that is borrowed from the JSON text where that is possible.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

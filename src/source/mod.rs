//! Opening a checkpoint directory: index, shards' headers, and everything that is not a weight.
//! Nothing here reads a tensor's bytes.

use std::borrow::Cow;

use serde::Deserialize;

mod aux_files;
mod checkpoint;
mod descriptors;
mod direct;
mod file;
mod header;
mod index;
mod links;
mod naming;
mod pool;
mod sync;

pub use aux_files::{AuxEntry, MOUNT_DIRECTORY};
pub use checkpoint::{Checkpoint, Shard, tensor_names};
pub(crate) use descriptors::with_room;
pub(crate) use direct::BLOCK;
pub use file::{Attributes, Handle, SourceFile};
pub use header::{
    MAX_HEADER_BYTES, StoredTensor, data_start, parse as parse_header, read as read_header,
};
pub use index::{INDEX_FILE, Index, SINGLE_FILE, WeightMap};
pub use links::Enclosure;
pub(crate) use naming::not_json;
pub use naming::{check_directory, missing};

/// A string that is borrowed from the JSON text where that is possible.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

//! Opening a checkpoint directory: index, shards' headers, and everything that is not a weight.
//! Nothing here reads a tensor's bytes.

use std::borrow::Cow;

use serde::Deserialize;

mod attributes;
mod aux_files;
mod blob;
mod checkpoint;
mod header;
mod index;
mod local;
mod naming;
mod pool;
mod sync;

pub use attributes::Attributes;
pub use aux_files::{AuxEntry, MOUNT_DIRECTORY};
pub use blob::{Blob, Identity};
pub use checkpoint::{Checkpoint, Shard, tensor_names};
pub use header::{
    MAX_HEADER_BYTES, StoredTensor, data_start, parse as parse_header, read as read_header,
};
pub use index::{INDEX_FILE, Index, SINGLE_FILE, WeightMap};
pub(crate) use local::{BLOCK, with_room};
pub use local::{Enclosure, Handle, LocalFile};
pub(crate) use naming::not_json;
pub use naming::{check_directory, missing};

/// A string that is borrowed from the JSON text where that is possible.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

//! Opening a checkpoint directory: index, shards' headers, and everything that is not a weight.
//! Nothing here reads a tensor's bytes.

use std::borrow::Cow;

use serde::Deserialize;

mod attributes;
mod blob;
pub(crate) mod local;
mod naming;
mod pool;
mod sync;

pub use crate::format::safetensors::{
    Checkpoint, INDEX_FILE, Index, MAX_HEADER_BYTES, SINGLE_FILE, Shard, StoredTensor, WeightMap,
    data_start, parse_header, read_header, tensor_names,
};
pub use attributes::Attributes;
pub use blob::{Blob, Identity};
pub use local::{AuxEntry, MOUNT_DIRECTORY};
pub(crate) use local::{BLOCK, with_room};
pub use local::{Enclosure, Handle, LocalFile};
pub(crate) use naming::not_json;
pub use naming::{check_directory, missing};

/// A string that is borrowed from the JSON text where that is possible.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

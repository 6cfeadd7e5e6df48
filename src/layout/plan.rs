//! A planned view: its files, and the tensors in each shard.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::{Extents, Report, Sources, Tensor};
use crate::layout::partition::Shards;
use crate::tensor::{Dtype, Name, Shape};
use crate::view::{EntryId, View};

/// A view that is ready to be read, and what there is to say about it.
#[derive(Debug)]
pub struct Plan {
    pub view: Arc<View>,
    /// The view's files that hold tensors, in shard order.
    pub shards: Vec<PlannedShard>,
    /// The index of the shards, unless there is a single file without one.
    pub index: Option<EntryId>,
    /// What other shards of the same tensors would cost.
    pub costs: ShardCosts,
    /// Which tensors are where in the source files.
    pub sources: Sources,
    pub report: Report,
}

impl Plan {
    /// The files that are not shards, in path order.
    pub fn aux_files(&self) -> impl Iterator<Item = (PathBuf, &Extents)> {
        let shards: HashSet<&Path> = self.shards.iter().map(|s| Path::new(&s.name)).collect();
        let files = self.view.files().map(|(_, path, content)| (path, content));
        let mut files: Vec<_> = files
            .filter(|(path, _)| !shards.contains(path.as_path()))
            .collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        files.into_iter()
    }
}

/// How much of the tensors can be read from source files as they are, by how the view is cut into shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardCosts {
    /// How the view is cut.
    pub chosen: Shards,
    /// Of the view as it is.
    pub view: ShardCost,
    /// Of the same view with other shards; none where standard names cannot number them.
    pub keep: Option<ShardCost>,
    pub renumber: Option<ShardCost>,
    pub repack: Option<ShardCost>,
}

impl ShardCosts {
    /// All that can be chosen among files with an index, with what each of them costs.
    pub fn choices(&self) -> [(Shards, Option<ShardCost>); 3] {
        [
            (Shards::Keep, self.keep),
            (Shards::Renumber, self.renumber),
            (Shards::Repack, self.repack),
        ]
    }
}

/// What shards cost to read: whole source files cost nothing, all else is put together or computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ShardCost {
    /// Files that hold tensors.
    pub shards: usize,
    /// Those of them that are source files, byte for byte.
    pub whole_files: usize,
    /// Bytes of the tensors in these, without headers.
    pub bytes_in_whole_files: u64,
}

/// A file of a view that holds tensors.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedShard {
    pub name: String,
    /// The file in the view.
    #[serde(skip)]
    pub entry: EntryId,
    /// Length of the file in bytes.
    pub len: u64,
    /// The source file that this shard is, byte for byte, if it is one.
    pub whole_file: Option<PathBuf>,
    /// In offset order.
    pub tensors: Vec<PlannedTensor>,
}

/// A tensor of a view.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedTensor {
    pub name: Name,
    pub dtype: Dtype,
    pub shape: Shape,
    /// What its bytes stand for, if they are blocks: dtype and shape are then those of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoded: Option<Encoded>,
    /// Offset of its first byte from the start of the shard.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// The source file that its bytes, or the first of them, lie in or are computed from.
    pub from: Arc<Path>,
    /// Whether the bytes are computed.
    pub computed: bool,
    /// Where its bytes come from.
    #[serde(skip)]
    pub extents: Extents,
}

/// A tensor in blocks, of a type that is no dtype.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Encoded {
    /// The name of the type, such as `Q4_K`.
    #[serde(rename = "type")]
    pub tensor_type: &'static str,
    /// Of its elements.
    pub shape: Shape,
}

impl PlannedTensor {
    /// The name of its dtype, or of the type that its blocks have.
    pub fn type_name(&self) -> String {
        match &self.encoded {
            Some(encoded) => encoded.tensor_type.to_owned(),
            None => self.dtype.to_string(),
        }
    }

    /// The shape of its elements.
    pub fn elements(&self) -> &Shape {
        self.encoded
            .as_ref()
            .map_or(&self.shape, |encoded| &encoded.shape)
    }

    /// The tensor apart from its place in a shard.
    pub fn tensor(&self) -> Tensor {
        Tensor {
            dtype: self.dtype,
            shape: self.shape.clone(),
            extents: self.extents.clone(),
            home: None,
        }
    }
}

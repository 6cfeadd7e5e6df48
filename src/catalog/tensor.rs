//! A tensor of a catalog: a byte range of a source file, or an output of a node.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::kernel::Kernel;
use crate::source::{Shard, StoredTensor};
use crate::tensor::Dtype;

/// A tensor and where its bytes come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Length in bytes.
    pub len: u64,
    pub data: Data,
    /// The base shard it belongs to (a position in `Catalog::homes`), or `None` if it was added.
    pub home: Option<usize>,
}

/// Where a tensor's bytes come from.
#[derive(Debug, Clone)]
pub enum Data {
    /// `Tensor::len` bytes of the shard's file from `offset`.
    Stored { shard: Arc<Shard>, offset: u64 },
    /// All bytes of output number `output` of `node`.
    Computed { node: Arc<Node>, output: usize },
}

impl Tensor {
    /// A tensor that lies in a source file.
    pub fn stored(tensor: &StoredTensor, shard: Arc<Shard>, home: Option<usize>) -> Self {
        Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            len: tensor.len,
            data: Data::Stored {
                shard,
                offset: tensor.offset,
            },
            home,
        }
    }

    /// The source file that the bytes lie in or, for a computed tensor, are first computed from.
    pub fn origin(&self) -> &Path {
        match &self.data {
            Data::Stored { shard, .. } => shard.file.path(),
            Data::Computed { node, .. } => match node.inputs.first() {
                Some(input) => input.origin(),
                None => Path::new(""),
            },
        }
    }

    /// Whether the bytes are those of a source file.
    pub fn is_stored(&self) -> bool {
        matches!(self.data, Data::Stored { .. })
    }
}

/// Identifies a node for as long as the process lives.
pub type NodeId = u64;

/// A computation: input tensors, a kernel, and one or more output tensors.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    /// The tensor it computes (the first output), for messages.
    pub name: String,
    pub inputs: Vec<Tensor>,
    pub kernel: Box<dyn Kernel>,
}

impl Node {
    /// A node that computes `name`.
    pub fn new(name: impl Into<String>, inputs: Vec<Tensor>, kernel: Box<dyn Kernel>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Node {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            inputs,
            kernel,
        }
    }

    /// Distinguishes this node from every other one of the process.
    pub fn id(&self) -> NodeId {
        self.id
    }
}

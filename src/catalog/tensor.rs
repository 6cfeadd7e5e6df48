//! A tensor of a catalog: a byte range of a source file, an output of a node, or several of these
//! one after the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::kernel::Kernel;
use crate::source::{Shard, SourceFile};
use crate::tensor::{Dtype, Name, Shape, byte_len};

/// A tensor and where its bytes come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Shape,
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
    /// The bytes of other tensors, one after the other.
    Joined(Arc<[Part]>),
}

/// A tensor inside a joined one.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where its bytes start in the joined tensor.
    pub start: u64,
    /// Stored or computed, never joined, and never without bytes.
    pub tensor: Tensor,
}

impl Tensor {
    /// The tensor called `name` in the header of `shard`, with its name as the header has it.
    ///
    /// # Panics
    /// If the header does not have it.
    pub fn stored(name: &str, shard: Arc<Shard>, home: Option<usize>) -> (Name, Self) {
        let found = shard.header.get_key_value(name);
        let (name, tensor) = found.expect("a shard is asked for its own tensors");
        let tensor = Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            len: tensor.len,
            data: Data::Stored {
                offset: tensor.offset,
                shard: shard.clone(),
            },
            home,
        };
        (name.clone(), tensor)
    }

    /// The tensor whose bytes are those of `tensors`, one after the other, as `shape` of the dtype
    /// of the first, at its home.
    ///
    /// # Panics
    /// If `tensors` is empty, or their bytes are not as many as the shape takes.
    pub fn joined(tensors: &[&Tensor], shape: impl Into<Shape>) -> Self {
        let &Tensor { dtype, home, .. } = tensors[0];
        let shape = shape.into();
        let mut parts: Vec<Part> = Vec::new();
        let mut len = 0;
        for piece in tensors.iter().flat_map(|tensor| tensor.pieces()) {
            if piece.len > 0 {
                parts.push(Part {
                    start: len,
                    tensor: piece.clone(),
                });
                len += piece.len;
            }
        }
        assert_eq!(byte_len(dtype, &shape), Some(len), "bytes of {shape:?}");
        let data = match parts.len() {
            0 => tensors[0].data.clone(),
            1 => parts.remove(0).tensor.data,
            _ => Data::Joined(parts.into()),
        };
        Tensor {
            dtype,
            shape,
            len,
            data,
            home,
        }
    }

    /// The tensor of `shape` whose bytes are those of this one from `start`; `None` if they are
    /// not one range of a source file.
    ///
    /// # Panics
    /// If `shape` does not take whole bytes of this tensor.
    pub fn slice(&self, start: u64, shape: impl Into<Shape>) -> Option<Self> {
        let shape = shape.into();
        let Data::Stored { shard, offset } = &self.data else {
            return None;
        };
        let len = byte_len(self.dtype, &shape).filter(|len| start + len <= self.len);
        Some(Tensor {
            dtype: self.dtype,
            len: len.expect("a slice lies inside its tensor"),
            shape,
            data: Data::Stored {
                shard: shard.clone(),
                offset: offset + start,
            },
            home: self.home,
        })
    }

    /// The stored and computed tensors whose bytes, one after the other, are those of this one.
    pub fn pieces(&self) -> impl Iterator<Item = &Tensor> {
        let parts: &[Part] = match &self.data {
            Data::Joined(parts) => parts,
            Data::Stored { .. } | Data::Computed { .. } => &[],
        };
        let itself = parts.is_empty().then_some(self);
        itself
            .into_iter()
            .chain(parts.iter().map(|part| &part.tensor))
    }

    /// Calls `visit` with every source file that the bytes lie in or are computed from, once or
    /// more often.
    pub fn for_each_source(&self, visit: &mut dyn FnMut(&Arc<SourceFile>)) {
        for piece in self.pieces() {
            match &piece.data {
                Data::Stored { shard, .. } => visit(&shard.file),
                Data::Computed { node, .. } => node.for_each_source(visit),
                Data::Joined(_) => unreachable!("a piece is not joined"),
            }
        }
    }

    /// The source file that the bytes, or the first of them, lie in or are computed from.
    pub fn origin(&self) -> &Arc<Path> {
        match &self.data {
            Data::Stored { shard, .. } => shard.file.shared_path(),
            Data::Computed { node, .. } => node.inputs[0].origin(),
            Data::Joined(parts) => parts[0].tensor.origin(),
        }
    }

    /// Whether all bytes are those of source files.
    pub fn is_stored(&self) -> bool {
        self.pieces()
            .all(|piece| matches!(piece.data, Data::Stored { .. }))
    }
}

/// Identifies a node for as long as the process lives.
pub type NodeId = u64;

/// A computation: input tensors, a kernel, and one or more output tensors.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    /// The tensor it computes (the first output), for messages.
    pub name: Name,
    /// At least one.
    pub inputs: Vec<Tensor>,
    pub kernel: Box<dyn Kernel>,
}

impl Node {
    /// A node that computes `name`.
    pub fn new(name: impl Into<Name>, inputs: Vec<Tensor>, kernel: Box<dyn Kernel>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Node {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            inputs,
            kernel,
        }
    }

    /// Calls `visit` with every source file that it computes from, once or more often.
    pub fn for_each_source(&self, visit: &mut dyn FnMut(&Arc<SourceFile>)) {
        for input in &self.inputs {
            input.for_each_source(visit);
        }
    }

    /// Bytes that are streamed before its first band can be computed, to find the facts that it
    /// and the nodes it computes from need.
    pub fn surveyed_bytes(&self) -> u64 {
        let passes = self.kernel.survey().map_or(0, |survey| survey.passes());
        let pieces = self.inputs.iter().flat_map(Tensor::pieces);
        let (mut bytes, mut deeper) = (0u64, 0u64);
        for piece in pieces {
            bytes += piece.len;
            if let Data::Computed { node, .. } = &piece.data {
                deeper += node.surveyed_bytes();
            }
        }
        deeper.saturating_add(bytes.saturating_mul(passes as u64))
    }

    /// Distinguishes this node from every other one of the process.
    pub fn id(&self) -> NodeId {
        self.id
    }
}

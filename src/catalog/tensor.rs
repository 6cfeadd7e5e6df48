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
    /// `Tensor::len` bytes of output number `output` of `node` from `offset`.
    Computed {
        node: Arc<Node>,
        output: usize,
        offset: u64,
    },
    /// The bytes of other tensors, one after the other.
    Joined(Arc<[Part]>),
}

/// A run of bytes of a joined tensor.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it starts in the joined tensor.
    pub start: u64,
    /// Its length in bytes, never 0.
    pub len: u64,
    /// Stored or computed, never joined.
    pub data: Data,
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
        for (piece_len, data) in tensors.iter().flat_map(|tensor| tensor.pieces()) {
            if piece_len > 0 {
                parts.push(Part {
                    start: len,
                    len: piece_len,
                    data: data.clone(),
                });
                len += piece_len;
            }
        }
        assert_eq!(byte_len(dtype, &shape), Some(len), "bytes of {shape:?}");
        Tensor {
            dtype,
            shape,
            len,
            data: Data::joined(parts, &tensors[0].data),
            home,
        }
    }

    /// The tensor of `shape` whose bytes are those of this one from `start`.
    ///
    /// # Panics
    /// If `shape` does not take whole bytes of this tensor.
    pub fn slice(&self, start: u64, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let inside = |len: &u64| start.checked_add(*len).is_some_and(|end| end <= self.len);
        let len = byte_len(self.dtype, &shape).filter(inside);
        let len = len.expect("a slice lies inside its tensor");
        Tensor {
            dtype: self.dtype,
            len,
            shape,
            data: self.data.slice(start, len),
            home: self.home,
        }
    }

    /// The stored and computed runs of bytes that, one after the other, are those of this tensor,
    /// each with its length.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &Data)> {
        let parts: &[Part] = match &self.data {
            Data::Joined(parts) => parts,
            Data::Stored { .. } | Data::Computed { .. } => &[],
        };
        let itself = parts.is_empty().then_some((self.len, &self.data));
        itself
            .into_iter()
            .chain(parts.iter().map(|part| (part.len, &part.data)))
    }

    /// The nodes that compute bytes of it, once for each run of bytes that they give.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.pieces().filter_map(|(_, data)| match data {
            Data::Computed { node, .. } => Some(&**node),
            Data::Stored { .. } | Data::Joined(_) => None,
        })
    }

    /// Calls `visit` with every source file that the bytes lie in or are computed from, once or
    /// more often.
    pub fn for_each_source(&self, visit: &mut dyn FnMut(&Arc<SourceFile>)) {
        for (_, data) in self.pieces() {
            match data {
                Data::Stored { shard, .. } => visit(&shard.file),
                Data::Computed { node, .. } => node.for_each_source(visit),
                Data::Joined(_) => unreachable!("a piece is not joined"),
            }
        }
    }

    /// The source file that the bytes, or the first of them, lie in or are computed from.
    pub fn origin(&self) -> &Arc<Path> {
        self.data.origin()
    }

    /// Whether all bytes are those of source files.
    pub fn is_stored(&self) -> bool {
        self.pieces()
            .all(|(_, data)| matches!(data, Data::Stored { .. }))
    }
}

impl Data {
    /// The bytes of `parts`, which follow each other; without parts, no bytes of `other`.
    fn joined(mut parts: Vec<Part>, other: &Data) -> Self {
        match parts.len() {
            0 => other.slice(0, 0),
            1 => parts.remove(0).data,
            _ => Data::Joined(parts.into()),
        }
    }

    /// `len` bytes from `start`.
    fn slice(&self, start: u64, len: u64) -> Self {
        match self {
            Data::Stored { shard, offset } => Data::Stored {
                shard: shard.clone(),
                offset: offset + start,
            },
            Data::Computed {
                node,
                output,
                offset,
            } => Data::Computed {
                node: node.clone(),
                output: *output,
                offset: offset + start,
            },
            Data::Joined(parts) => {
                let end = start + len;
                let first = parts.partition_point(|part| part.start + part.len <= start);
                let overlapping = parts[first..].iter().take_while(|part| part.start < end);
                let cut = overlapping.map(|part| {
                    let (from, to) = (part.start.max(start), end.min(part.start + part.len));
                    Part {
                        start: from - start,
                        len: to - from,
                        data: part.data.slice(from - part.start, to - from),
                    }
                });
                Data::joined(cut.collect(), &parts[0].data)
            }
        }
    }

    fn origin(&self) -> &Arc<Path> {
        match self {
            Data::Stored { shard, .. } => shard.file.shared_path(),
            Data::Computed { node, .. } => node.inputs[0].origin(),
            Data::Joined(parts) => parts[0].data.origin(),
        }
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
        let deeper = self.computed_inputs().map(Node::surveyed_bytes);
        deeper.fold(self.surveyed_here(), u64::saturating_add)
    }

    /// Bytes of its inputs that are streamed to find the facts that it needs itself, or of what an
    /// input that it [keeps](Kernel::keeps) is a digest of.
    pub fn surveyed_here(&self) -> u64 {
        let passes = self.kernel.survey().map_or(0, |survey| survey.passes());
        let surveyed = self.input_bytes().saturating_mul(passes as u64);
        let inputs = self.inputs.iter().enumerate();
        let kept = inputs.filter(|&(i, _)| self.kernel.keeps(i));
        let digests = kept.flat_map(|(_, input)| input.nodes().flat_map(Node::computed_inputs));
        digests
            .map(Node::input_bytes)
            .fold(surveyed, u64::saturating_add)
    }

    fn input_bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.len).sum()
    }

    /// The nodes it computes from, once for each run of bytes that they give.
    pub fn computed_inputs(&self) -> impl Iterator<Item = &Node> {
        self.inputs.iter().flat_map(Tensor::nodes)
    }

    /// Distinguishes this node from every other one of the process.
    pub fn id(&self) -> NodeId {
        self.id
    }
}

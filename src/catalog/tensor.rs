//! A tensor of a catalog, the extents that its bytes come from, and the nodes that compute some of
//! them. They refer to each other: a tensor may be computed by a node from other tensors.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::catalog::kernel::{Kernel, NumberKind};
use crate::error::{Code, Error, Result};
use crate::runs::{Place, Runs, Segment};
use crate::source::Blob;
use crate::tensor::{Dtype, Name, Shape, byte_len, shape_text};

/// Where the bytes of a run come from.
#[derive(Debug, Clone)]
pub enum Extent {
    /// Bytes made while the view is planned: a header, an index, an edited config.
    Made { bytes: Arc<Vec<u8>>, offset: u64 },
    /// Bytes of a source.
    Stored { blob: Arc<dyn Blob>, offset: u64 },
    /// Bytes of output number `output` of a node.
    Computed {
        node: Arc<Node>,
        output: usize,
        offset: u64,
    },
}

/// A view may have millions of them.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Extent>() == 32);

/// What a tensor or a file is made of.
pub type Extents = Runs<Extent>;

impl Place for Extent {
    fn skip(&self, bytes: u64) -> Self {
        let mut place = self.clone();
        let (Extent::Made { offset, .. }
        | Extent::Stored { offset, .. }
        | Extent::Computed { offset, .. }) = &mut place;
        *offset += bytes;
        place
    }

    fn is_continued_by(&self, len: u64, next: &Self) -> bool {
        use Extent::{Computed, Made, Stored};
        let (same, offset, at) = match (self, next) {
            (
                Made { bytes, offset },
                Made {
                    bytes: other,
                    offset: at,
                },
            ) => (Arc::ptr_eq(bytes, other), offset, at),
            (
                Stored { blob, offset },
                Stored {
                    blob: other,
                    offset: at,
                },
            ) => (Arc::ptr_eq(blob, other), offset, at),
            (
                Computed {
                    node,
                    output,
                    offset,
                },
                Computed {
                    node: other,
                    output: of,
                    offset: at,
                },
            ) => (Arc::ptr_eq(node, other) && output == of, offset, at),
            _ => return false,
        };
        same && offset + len == *at
    }
}

impl Extent {
    /// The location of the source of its bytes, or of the first inputs that they are computed from.
    fn origin(&self) -> &Arc<Path> {
        static MADE: LazyLock<Arc<Path>> = LazyLock::new(|| Path::new("(made by the view)").into());
        match self {
            Extent::Made { .. } => &MADE,
            Extent::Stored { blob, .. } => blob.location(),
            Extent::Computed { node, .. } => node.inputs[0].origin(),
        }
    }

    /// Calls `visit` with every source that its bytes are in or are computed from, once or
    /// more often.
    pub fn for_each_source(&self, visit: &mut dyn FnMut(&Arc<dyn Blob>)) {
        match self {
            Extent::Made { .. } => {}
            Extent::Stored { blob, .. } => visit(blob),
            Extent::Computed { node, .. } => node.for_each_source(visit),
        }
    }

    /// The node that computes its bytes, if one does.
    pub fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Extent::Computed { node, .. } => Some(node),
            Extent::Made { .. } | Extent::Stored { .. } => None,
        }
    }
}

impl Extents {
    /// All bytes of `blob`.
    pub fn whole(blob: Arc<dyn Blob>) -> Self {
        Runs::one(blob.len(), Extent::Stored { blob, offset: 0 })
    }

    /// Bytes that the view makes itself.
    pub fn made(bytes: Vec<u8>) -> Self {
        Self::made_of(Arc::new(bytes))
    }

    /// The same of bytes that others have too.
    pub(crate) fn made_of(bytes: Arc<Vec<u8>>) -> Self {
        Runs::one(bytes.len() as u64, Extent::Made { bytes, offset: 0 })
    }

    /// Whether these are the same bytes of the same places.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (all, others) = (self.segments(), other.segments());
        // Where nothing is between them, one continues the other.
        let is_same = |(a, b): (&Segment<Extent>, &Segment<Extent>)| {
            a.len == b.len && a.place.is_continued_by(0, &b.place)
        };
        all.len() == others.len() && all.iter().zip(others).all(is_same)
    }

    /// The blob and the offset in it, if all bytes are one range of a source.
    pub fn as_stored(&self) -> Option<(&Arc<dyn Blob>, u64)> {
        match self.place()? {
            Extent::Stored { blob, offset } => Some((blob, *offset)),
            Extent::Made { .. } | Extent::Computed { .. } => None,
        }
    }

    /// Node, output and the offset in it, if all bytes are one range of an output.
    pub fn as_computed(&self) -> Option<(&Arc<Node>, usize, u64)> {
        match self.place()? {
            Extent::Computed {
                node,
                output,
                offset,
            } => Some((node, *output, *offset)),
            Extent::Made { .. } | Extent::Stored { .. } => None,
        }
    }

    /// The source that this is, if it is one from its first byte to its last.
    pub fn whole_file(&self) -> Option<&Arc<dyn Blob>> {
        match self.segments() {
            [
                Segment {
                    len,
                    place: Extent::Stored { blob, offset: 0 },
                    ..
                },
            ] if *len == blob.len() => Some(blob),
            _ => None,
        }
    }
}

/// A tensor and where its bytes come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Shape,
    /// As many bytes as dtype and shape take, from at least one place.
    pub extents: Extents,
    /// The base shard it belongs to (a position in `Catalog::homes`), or `None` if it was added.
    pub home: Option<usize>,
}

impl Tensor {
    /// Output number `output` of `node`, whole.
    ///
    /// # Panics
    /// If it takes 2^64 bytes or more.
    pub fn computed(
        node: Arc<Node>,
        output: usize,
        dtype: Dtype,
        shape: impl Into<Shape>,
        home: Option<usize>,
    ) -> Self {
        let shape = shape.into();
        let len = byte_len(dtype, &shape).expect("sizes are checked before they are computed");
        let offset = 0;
        Tensor {
            dtype,
            shape,
            extents: Runs::one(
                len,
                Extent::Computed {
                    node,
                    output,
                    offset,
                },
            ),
            home,
        }
    }

    /// What `kernel` computes from `inputs`: `original` in another dtype, called `name` in messages.
    ///
    /// # Errors
    /// If it would take 2^61 bytes or more.
    pub fn in_dtype(
        name: &str,
        original: &Tensor,
        dtype: Dtype,
        inputs: Vec<Tensor>,
        kernel: Box<dyn Kernel>,
    ) -> Result<Self> {
        if byte_len(dtype, &original.shape).is_none() {
            let shape = shape_text(&original.shape);
            return Err(Error::of_tensor(
                Code::OverLimit,
                original.origin(),
                name,
                format!("its shape is {shape}: as {dtype} it would have 2^61 bytes or more"),
            ));
        }
        let node = Arc::new(Node::new(name, inputs, kernel));
        let shape = original.shape.clone();
        Ok(Tensor::computed(node, 0, dtype, shape, original.home))
    }

    /// The tensor whose bytes are those of `tensors`, one after the other, as `shape` of the dtype
    /// of the first, at its home.
    ///
    /// # Panics
    /// If `tensors` is empty, or their bytes are not as many as the shape takes.
    pub fn joined(tensors: &[&Tensor], shape: impl Into<Shape>) -> Self {
        let &Tensor { dtype, home, .. } = tensors[0];
        let shape = shape.into();
        let extents = Runs::concat(tensors.iter().map(|tensor| &tensor.extents));
        assert_eq!(
            byte_len(dtype, &shape),
            Some(extents.len()),
            "bytes of {shape:?}"
        );
        Tensor {
            dtype,
            shape,
            extents,
            home,
        }
    }

    /// The tensor of `shape` whose bytes are those of this one from `start`.
    ///
    /// # Panics
    /// If `shape` does not take whole bytes of this tensor.
    pub fn slice(&self, start: u64, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let end = byte_len(self.dtype, &shape).and_then(|len| start.checked_add(len));
        let end = end.filter(|&end| end <= self.len());
        let end = end.expect("a slice lies inside its tensor");
        Tensor {
            dtype: self.dtype,
            shape,
            extents: self.extents.slice(start..end),
            home: self.home,
        }
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.extents.len()
    }

    /// The places that its bytes come from, also where it has no bytes.
    pub fn places(&self) -> impl Iterator<Item = &Extent> {
        self.extents
            .with_empty()
            .iter()
            .map(|segment| &segment.place)
    }

    /// The nodes that compute bytes of it, once for each run of bytes that they give.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.places()
            .filter_map(|place| place.node().map(|node| &**node))
    }

    /// What is known of its numbers.
    pub fn number_kind(&self) -> NumberKind {
        let kinds = self.places().map(|place| match place.node() {
            Some(node) => node.number_kind(),
            None => NumberKind::Any,
        });
        kinds.reduce(NumberKind::and).unwrap_or(NumberKind::Any)
    }

    /// Calls `visit` with every source that the bytes are in or are computed from, once or
    /// more often.
    pub fn for_each_source(&self, visit: &mut dyn FnMut(&Arc<dyn Blob>)) {
        self.places().for_each(|place| place.for_each_source(visit));
    }

    /// The location of the source that the bytes, or the first of them, are in or are computed from.
    pub fn origin(&self) -> &Arc<Path> {
        self.places().next().expect("a tensor has a place").origin()
    }

    /// Whether all bytes are stored in sources.
    pub fn is_stored(&self) -> bool {
        self.places()
            .all(|place| matches!(place, Extent::Stored { .. }))
    }

    /// The blob and the offset in it, if all bytes are one range of a source.
    pub fn as_stored(&self) -> Option<(&Arc<dyn Blob>, u64)> {
        self.extents.as_stored()
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

    /// Calls `visit` with every source that it computes from, once or more often.
    pub fn for_each_source(&self, visit: &mut dyn FnMut(&Arc<dyn Blob>)) {
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
    /// input that it [shares between bands](Kernel::shares_input) is a digest of.
    pub fn surveyed_here(&self) -> u64 {
        let passes = self.kernel.survey().map_or(0, |survey| survey.passes());
        let surveyed = self.input_bytes().saturating_mul(passes as u64);
        let inputs = self.inputs.iter().enumerate();
        let shared = inputs.filter(|&(i, _)| self.kernel.shares_input(i));
        let digests = shared.flat_map(|(_, input)| input.nodes().flat_map(Node::computed_inputs));
        digests
            .map(Node::input_bytes)
            .fold(surveyed, u64::saturating_add)
    }

    fn input_bytes(&self) -> u64 {
        self.inputs.iter().map(Tensor::len).sum()
    }

    /// The nodes it computes from, once for each run of bytes that they give.
    pub fn computed_inputs(&self) -> impl Iterator<Item = &Node> {
        self.inputs.iter().flat_map(Tensor::nodes)
    }

    /// What is known of the numbers that it gives.
    fn number_kind(&self) -> NumberKind {
        self.kernel.number_kind().unwrap_or_else(|| {
            let inputs = self.inputs.iter().map(Tensor::number_kind);
            inputs.reduce(NumberKind::and).unwrap_or(NumberKind::Any)
        })
    }

    /// Distinguishes this node from every other one of the process.
    pub fn id(&self) -> NodeId {
        self.id
    }
}

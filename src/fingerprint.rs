//! A checksum of what files are made of, before a byte of them is read: lengths, bytes that are
//! already made, where in which source stored bytes are, and how others are computed.
//!
//! Sources count by the order in which they are met, so the checksum is the same on every machine.
//! Where they are, and what pins their content, is added on demand.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexSet;
use sha2::{Digest, Sha256};

use crate::catalog::{Extent, Node, NodeId, Tensor};
use crate::runs::Segment;
use crate::source::Blob;

/// The checksum so far.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint {
    hash: Sha256,
    /// Location and identity of each source, in the order in which they were met.
    sources: IndexSet<(Arc<Path>, String)>,
    /// Nodes by number, likewise.
    nodes: HashMap<NodeId, u64>,
}

impl Fingerprint {
    pub(crate) fn number(&mut self, number: u64) {
        self.hash.update(number.to_le_bytes());
    }

    /// Adds `text` so that no other sequence of texts adds the same bytes.
    pub(crate) fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.hash.update(text);
    }

    pub(crate) fn segment(&mut self, segment: &Segment<Extent>) {
        self.number(segment.len);
        match &segment.place {
            Extent::Made { bytes, offset } => {
                let start = *offset as usize;
                self.text(&bytes[start..start + segment.len as usize]);
            }
            Extent::Stored { blob, offset } => self.source(&**blob, *offset),
            Extent::Computed {
                node,
                output,
                offset,
            } => self.node(node, *output, *offset),
        }
    }

    #[cfg(feature = "serve")]
    /// Adds where each source is, and what pins its content.
    pub(crate) fn sources(&mut self) {
        for (location, identity) in std::mem::take(&mut self.sources) {
            self.text(location.as_os_str().as_encoded_bytes());
            self.text(identity.as_bytes());
        }
    }

    /// The SHA-256 of all that was added.
    pub(crate) fn finish(self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    fn source(&mut self, blob: &dyn Blob, offset: u64) {
        let source = (blob.location().clone(), blob.identity().to_string());
        let (number, _) = self.sources.insert_full(source);
        self.text(b"source");
        self.number(number as u64);
        self.number(blob.len());
        self.number(offset);
    }

    fn node(&mut self, node: &Node, output: usize, offset: u64) {
        self.text(b"computed");
        self.number(output as u64);
        self.number(offset);
        if let Some(number) = self.nodes.get(&node.id()) {
            return self.number(*number);
        }
        let next = self.nodes.len() as u64;
        self.nodes.insert(node.id(), next);
        self.number(next);
        self.text(node.name.as_bytes());
        self.text(node.kernel.identity().as_bytes());
        for input in &node.inputs {
            self.tensor(input);
        }
    }

    fn tensor(&mut self, tensor: &Tensor) {
        self.text(format!("{:?} {:?}", tensor.dtype, tensor.shape).as_bytes());
        let segments = tensor.extents.with_empty();
        self.number(segments.len() as u64);
        segments.iter().for_each(|segment| self.segment(segment));
    }
}

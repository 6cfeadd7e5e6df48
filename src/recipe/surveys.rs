//! What a view reads before it can give the first byte of some tensors.

use std::collections::HashSet;

use crate::catalog::{Extents, Node, NodeId};
use crate::layout::Plan;

/// Bytes of inputs that are streamed to find facts about whole tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Surveys {
    /// At most so many before the first byte of any one tensor.
    pub largest: u64,
    /// All of the view's together: each is done once, whatever computes from it.
    pub all: u64,
}

impl Plan {
    /// What is streamed before first bytes; zeros if no tensor has to wait for that.
    pub fn surveys(&self) -> Surveys {
        let mut surveys = Surveys::default();
        let mut seen = HashSet::new();
        let mut tops: HashSet<NodeId> = HashSet::new();
        let files = self.view.files();
        let segments = files.flat_map(|(_, _, content)| Extents::segments(content));
        for segment in segments {
            if let Some(node) = segment.place.node()
                && tops.insert(node.id())
            {
                let alone = streamed(node, &mut HashSet::new());
                surveys.largest = surveys.largest.max(alone);
                surveys.all = surveys.all.saturating_add(streamed(node, &mut seen));
            }
        }
        surveys
    }
}

/// The bytes of `node` and of what it computes from, less those of nodes that were `seen`.
fn streamed(node: &Node, seen: &mut HashSet<NodeId>) -> u64 {
    if !seen.insert(node.id()) {
        return 0;
    }
    let below = node.computed_inputs().map(|node| streamed(node, seen));
    below.fold(node.surveyed_here(), u64::saturating_add)
}

//! Cutting files into pieces of work, so that one large file keeps every thread busy too.

use std::collections::HashMap;

use crate::catalog::NodeId;
use crate::materialize::write::NewFile;
use crate::view::{Segment, SegmentData};

/// Bytes after which a piece takes no further segment.
const PIECE_BYTES: u64 = 32 << 20;

/// Segments of one file that are written by one thread.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) file: &'a NewFile<'a>,
    pub(super) segments: Vec<&'a Segment>,
}

/// The pieces of `file`, in file order. The outputs of a node are in one piece wherever they lie
/// in the file, so that what computing the first gives for the others is still at hand.
pub(super) fn of<'a>(file: &'a NewFile<'a>) -> Vec<Piece<'a>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut piece_of_node: HashMap<NodeId, usize> = HashMap::new();
    let mut filled = u64::MAX;
    for segment in file.content.segments() {
        if let SegmentData::Computed { node, .. } = &segment.data
            && let Some(piece) = piece_of_node.get(&node.id())
        {
            pieces[*piece].segments.push(segment);
            continue;
        }
        if filled >= PIECE_BYTES {
            filled = 0;
            pieces.push(Piece {
                file,
                segments: Vec::new(),
            });
        }
        let last = pieces.len() - 1;
        pieces[last].segments.push(segment);
        filled += segment.len;
        if let SegmentData::Computed { node, .. } = &segment.data {
            piece_of_node.insert(node.id(), last);
        }
    }
    pieces
}

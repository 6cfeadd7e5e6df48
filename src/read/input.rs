//! Inputs of a band, as a kernel has them.

use std::ops::Range;

use crate::read::buffers::Buffer;
use crate::read::tiles::TileOutput;

/// An input of a band.
pub(super) enum Input {
    Read(Buffer),
    /// This range of a whole input that is kept.
    Kept(TileOutput, Range<usize>),
}

impl Input {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Input::Read(bytes) => bytes,
            Input::Kept(whole, range) => &whole[range.clone()],
        }
    }
}

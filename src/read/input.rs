//! Inputs of a band, as a kernel has them.

use std::ops::Range;

use crate::read::buffers::Buffer;
use crate::read::tiles::TileOutput;

/// An input of a band.
pub(super) enum Input {
    Read(Buffer),
    /// This range of a whole input that bands share.
    Shared(TileOutput, Range<usize>),
}

impl Input {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Input::Read(bytes) => bytes,
            Input::Shared(whole, range) => &whole[range.clone()],
        }
    }
}

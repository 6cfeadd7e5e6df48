//! Small tensors whose values say how others are stored, read while a view is planned.

use crate::catalog::{Extent, Tensor};
use crate::error::Result;

/// Such a tensor has at most this many bytes.
const MAX_BYTES: u64 = 1 << 16;

/// The bytes of `tensor`; `None` if they are too many, or computed.
///
/// # Errors
/// If they cannot be read.
pub(super) fn read(tensor: &Tensor) -> Result<Option<Vec<u8>>> {
    if tensor.len() > MAX_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; tensor.len() as usize];
    let mut rest = &mut bytes[..];
    for segment in tensor.extents.segments() {
        let (part, after) = rest.split_at_mut(segment.len as usize);
        match &segment.place {
            Extent::Stored { blob, offset } => blob.read_at(part, *offset)?,
            Extent::Made { bytes, offset } => {
                part.copy_from_slice(&bytes[*offset as usize..][..part.len()]);
            }
            Extent::Computed { .. } => return Ok(None),
        }
        rest = after;
    }
    Ok(Some(bytes))
}

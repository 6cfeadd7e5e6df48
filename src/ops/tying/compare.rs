//! Whether two tensors have the same bytes, by reading both on all processors.

use std::ops::Range;

use crate::catalog::{Extent, Tensor};
use crate::error::{Code, Error, Result};
use crate::jobs;
use crate::memory;
use crate::tensor::shape_text;

/// Bytes that are read of each tensor at once.
const PIECE: u64 = 4 << 20;

/// Checks that `head` has the bytes of `embedding`. Where both are one range of a source, nothing is read.
///
/// # Errors
/// If it has not, with the first row that is different; if a source cannot be read; if one of them is computed by
/// the view.
pub(super) fn same(name: &str, head: &Tensor, of: &str, embedding: &Tensor) -> Result<()> {
    let unequal = |problem: String| {
        let error = Error::of_tensor(Code::UnequalHead, head.origin(), name, problem);
        Err(error)
    };
    if (head.dtype, &head.shape) != (embedding.dtype, &embedding.shape) {
        return unequal(format!(
            "it is {} of the shape {}, and {of} is {} of the shape {}",
            head.dtype,
            shape_text(&head.shape),
            embedding.dtype,
            shape_text(&embedding.shape)
        ));
    }
    if head.extents.is_same(&embedding.extents) {
        return Ok(());
    }
    for (name, tensor) in [(name, head), (of, embedding)] {
        if tensor.nodes().next().is_some() {
            let problem = "its bytes are computed by this view, and only those of a source can be compared before that is mounted or written";
            let error = Error::of_tensor(Code::UnsupportedTensor, tensor.origin(), name, problem);
            return Err(error);
        }
    }
    let len = head.len();
    let starts: Vec<u64> = (0..len.div_ceil(PIECE))
        .map(|piece| piece * PIECE)
        .collect();
    jobs::for_each(&starts, jobs::processors(), |&start| {
        let range = start..(start + PIECE).min(len);
        let (a, b) = (read(head, range.clone())?, read(embedding, range)?);
        if a == b {
            return Ok(());
        }
        let pairs = a.iter().zip(&b);
        let same = pairs.take_while(|(a, b)| a == b).count() as u64;
        let row = (start + same) / (len / head.shape[0]);
        unequal(format!(
            "it is not {of}: row {row} is the first that is different"
        ))
    })
}

/// The bytes `range` of `tensor`, which no node computes.
fn read(tensor: &Tensor, range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = memory::zeros(range.end - range.start)?;
    let mut rest = &mut bytes[..];
    for piece in tensor.extents.within(range) {
        let (part, after) = rest.split_at_mut(piece.len as usize);
        match piece.place() {
            Extent::Stored { blob, offset } => blob.read_at(part, offset)?,
            Extent::Made { bytes, offset } => {
                let start = offset as usize;
                part.copy_from_slice(&bytes[start..start + part.len()]);
            }
            Extent::Computed { .. } => unreachable!("this is asked before"),
        }
        rest = after;
    }
    Ok(bytes)
}

//! The pieces in `.distcp` files: each a whole file of `torch.save` with one tensor, or all of them together a
//! safetensors file.

use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Piece, StoredTensor};
use crate::format::torch;
use crate::format::training::dcp::metadata::{Chunk, Wanted};
use crate::format::training::dcp::safetensors::Header;
use crate::format::training::dcp::window::Window;
use crate::source::Blob;
use crate::tensor::shape_text;

/// The pieces `listed` of `tensors`, by their positions, in the file `blob`, which is number `shard`; each with the
/// position of its tensor.
///
/// # Errors
/// If one is not where it should be, or is another tensor.
pub(super) fn read(
    shard: usize,
    blob: &Arc<dyn Blob>,
    tensors: &[Wanted],
    listed: &[(usize, usize)],
) -> Result<Vec<(usize, Piece)>> {
    let mut start = [0; 4];
    let is_zip = blob.len() >= 4 && {
        blob.read_at(&mut start, 0)?;
        start == torch::LOCAL_HEADER
    };
    // Of safetensors, the metadata has no places.
    let header = match is_zip {
        true => None,
        false => Some(Header::read(&**blob)?),
    };
    let mut pieces = Vec::with_capacity(listed.len());
    for &(tensor, chunk) in listed {
        let wanted = &tensors[tensor];
        let chunk = &wanted.chunks[chunk];
        let stored = match &header {
            None => saved(blob, wanted, chunk)?,
            Some(header) => of_header(&**blob, header, wanted, chunk)?,
        };
        if (stored.dtype, &stored.shape) != (wanted.dtype, &chunk.sizes) {
            let problem = format!(
                ".metadata says that its piece at {} is {} {}, and it is {} {}",
                shape_text(&chunk.offsets),
                wanted.dtype,
                shape_text(&chunk.sizes),
                stored.dtype,
                shape_text(&stored.shape)
            );
            let path = blob.location();
            return Err(Error::of_tensor(
                Code::BadPieces,
                path,
                &*wanted.name,
                problem,
            ));
        }
        let offsets = chunk.offsets.clone();
        let piece = Piece {
            shard,
            offsets,
            stored,
        };
        pieces.push((tensor, piece));
    }
    Ok(pieces)
}

/// The one tensor in a file of `torch.save` that is a part of `blob`.
fn saved(blob: &Arc<dyn Blob>, wanted: &Wanted, chunk: &Chunk) -> Result<StoredTensor> {
    let refuse =
        |code, problem: String| Error::of_tensor(code, blob.location(), &*wanted.name, problem);
    let Chunk { start, len, .. } = *chunk;
    if start.checked_add(len).is_none_or(|end| end > blob.len()) {
        let problem = format!(
            ".metadata says that a piece has {len} bytes from {start} on, and the file has {} bytes",
            blob.len()
        );
        return Err(refuse(Code::Truncated, problem).with_hint("is the copy complete?"));
    }
    let window = Window::new(blob, start, len)?;
    let saved = torch::open(&window).map_err(|error| error.about_tensor(&*wanted.name))?;
    let root = saved.pickle.root();
    let stored = saved.tensors().find(&wanted.name, root)?;
    let mut stored = stored.ok_or_else(|| {
        let kind = saved.pickle.kind(root);
        refuse(
            Code::BadTorchFile,
            format!("its piece is no tensor, but {kind}"),
        )
    })?;
    stored.offset += start;
    // Megatron-Core saves layers of a stack without the dimension of the stack.
    let is_alike = stored.shape == chunk.sizes
        || stored.strides.is_none() && without_ones(&stored.shape) == without_ones(&chunk.sizes);
    if is_alike {
        stored.shape = chunk.sizes.clone();
    }
    Ok(stored)
}

fn without_ones(shape: &[u64]) -> &[u64] {
    let ones = shape.iter().take_while(|&&len| len == 1).count();
    &shape[ones..]
}

fn of_header(
    blob: &dyn Blob,
    header: &Header,
    wanted: &Wanted,
    chunk: &Chunk,
) -> Result<StoredTensor> {
    let refuse = |problem: String| {
        Error::of_tensor(Code::BadPieces, blob.location(), &*wanted.name, problem)
    };
    let Some((stored, offsets)) = header.piece(&wanted.name) else {
        let problem = ".metadata says that a piece of it is in this file, and the header does not";
        return Err(refuse(problem.to_owned()));
    };
    if offsets.is_some_and(|offsets| *offsets != *chunk.offsets) {
        let problem = "its piece in this file begins elsewhere in the tensor than .metadata says";
        return Err(refuse(problem.to_owned()));
    }
    Ok(stored.clone())
}

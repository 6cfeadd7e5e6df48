//! Flat vectors, and parameters that are cut out of them.

use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{Piece, StoredTensor};
use crate::format::training::files::Files;
use crate::tensor::{Dtype, Name, Shape, byte_len};

/// The vector of a rank: vectors in a file, one after the other.
#[derive(Debug)]
pub(super) struct Flat<'a> {
    shard: usize,
    /// Where each begins, in elements.
    parts: Vec<(u64, &'a StoredTensor)>,
    len: u64,
}

impl<'a> Flat<'a> {
    /// The vector that `parts` are in the file `shard`.
    pub(super) fn new(shard: usize, parts: &'a [StoredTensor]) -> Self {
        let mut len = 0;
        let parts = parts.iter().map(|part| {
            let start = len;
            len += part.len / width(part.dtype);
            (start, part)
        });
        Flat {
            shard,
            parts: parts.collect(),
            len,
        }
    }

    /// That of its elements; nothing if they are not all of one, or not one after the other.
    pub(super) fn dtype(&self) -> Option<Dtype> {
        let (_, first) = self.parts.first()?;
        let mut parts = self.parts.iter();
        let is_plain = parts.all(|(_, part)| part.dtype == first.dtype && part.strides.is_none());
        is_plain.then_some(first.dtype)
    }

    /// Adds the `count` elements from `start` on, which are inside, as those of `wanted` from `first` on.
    fn add(
        &self,
        files: &mut Files,
        wanted: &Wanted,
        start: u64,
        count: u64,
        first: u64,
    ) -> Result<()> {
        let Wanted { name, dtype, shape } = *wanted;
        let end = start + count;
        let from = self.parts.partition_point(|(at, part)| {
            let len = part.len / width(part.dtype);
            at + len <= start
        });
        for (at, part) in &self.parts[from..] {
            let len = part.len / width(part.dtype);
            let (begin, stop) = (start.max(*at), end.min(at + len));
            if begin >= stop {
                break;
            }
            let offset = part.offset + (begin - at) * width(dtype);
            let bytes = (stop - begin) * width(dtype);
            let piece = Piece {
                shard: self.shard,
                offsets: [first + begin - start].into(),
                stored: StoredTensor::contiguous(dtype, [stop - begin], offset, bytes),
            };
            files.piece(name, (dtype, shape), true, piece)?;
        }
        Ok(())
    }
}

/// A parameter that is cut out.
struct Wanted<'a> {
    name: &'a Name,
    dtype: Dtype,
    shape: &'a Shape,
}

/// Bytes of an element.
fn width(dtype: Dtype) -> u64 {
    (dtype.bitsize() as u64 / 8).max(1)
}

/// How many elements a parameter has.
fn count(path: &Path, name: &Name, dtype: Dtype, shape: &Shape) -> Result<u64> {
    let bytes = byte_len(dtype, shape).filter(|&bytes| bytes < 1 << 61);
    let bytes = bytes.ok_or_else(|| {
        let problem = format!("its shape is {shape:?}: that is 2^61 bytes or more");
        Error::of_tensor(Code::BadTorchFile, path, &**name, problem)
    })?;
    Ok(bytes / width(dtype))
}

fn check_plain(path: &Path, ranks: &[Flat], dtype: Dtype) -> Result<()> {
    let is_other = |rank: &Flat| !rank.parts.is_empty() && rank.dtype() != Some(dtype);
    if ranks.iter().any(is_other) {
        let problem = format!("the vectors of all ranks should be {dtype}, and one is not");
        return Err(Error::of_file(Code::BadPieces, path, problem));
    }
    Ok(())
}

/// Cuts parameters of these `shapes`, one after the other, out of the one vector of f32 that `ranks` are together.
/// What it has beyond them only makes the parts of ranks equally long.
pub(super) fn cut(
    files: &mut Files,
    path: &Path,
    shapes: &[(Name, Shape)],
    ranks: &[Flat],
) -> Result<()> {
    let dtype = Dtype::F32;
    check_plain(path, ranks, dtype)?;
    let mut starts = Vec::with_capacity(ranks.len());
    let mut len = 0u64;
    for rank in ranks {
        starts.push(len);
        len = len.saturating_add(rank.len);
    }
    let mut at = 0u64;
    for (name, shape) in shapes {
        let count = count(path, name, dtype, shape)?;
        let end = at.checked_add(count).filter(|&end| end <= len);
        let end = end.ok_or_else(|| {
            let problem = format!(
                "it would have the elements {at} to {} of the vector of its group, which has {len}",
                at.saturating_add(count)
            );
            Error::of_tensor(Code::BadPieces, path, &**name, problem)
        })?;
        if count == 0 {
            files.without_elements(name, (dtype, shape));
        }
        let wanted = Wanted { name, dtype, shape };
        let first = starts
            .partition_point(|&start| start <= at)
            .saturating_sub(1);
        for (rank, &start) in ranks.iter().zip(&starts).skip(first) {
            let (begin, stop) = (at.max(start), end.min(start + rank.len));
            if start >= end {
                break;
            }
            if begin < stop {
                rank.add(files, &wanted, begin - start, stop - begin, begin - at)?;
            }
        }
        at = end;
    }
    // The whole is a multiple of twice the ranks.
    let unit = 2 * ranks.len() as u64;
    if len.div_ceil(unit) != at.div_ceil(unit) {
        let problem = format!("the vector of a group has {len} elements, and its parameters {at}");
        return Err(Error::of_file(Code::BadPieces, path, problem));
    }
    Ok(())
}

/// Cuts parameters of these `shapes` out of vectors of which each of `ranks` has one: of each parameter it has an equal
/// share, the last ones perhaps with padding.
pub(super) fn cut_alike(
    files: &mut Files,
    path: &Path,
    shapes: &[&(Name, Shape)],
    dtype: Dtype,
    ranks: &[Flat],
) -> Result<()> {
    check_plain(path, ranks, dtype)?;
    let len = ranks.first().map_or(0, |rank| rank.len);
    if ranks.iter().any(|rank| rank.len != len) {
        let problem = "the vectors of ranks have different lengths";
        return Err(Error::of_file(Code::BadPieces, path, problem));
    }
    let mut at = 0u64;
    for (name, shape) in shapes {
        let count = count(path, name, dtype, shape)?;
        let share = count.div_ceil(ranks.len() as u64);
        let end = at.checked_add(share).filter(|&end| end <= len);
        let end = end.ok_or_else(|| {
            let problem = format!(
                "it would have the elements {at} to {} of each rank's vector, which has {len}",
                at.saturating_add(share)
            );
            Error::of_tensor(Code::BadPieces, path, &**name, problem)
        })?;
        if count == 0 {
            files.without_elements(name, (dtype, shape));
        }
        let wanted = Wanted { name, dtype, shape };
        for (rank, first) in ranks.iter().zip((0..).map(|i| i * share)) {
            let here = share.min(count.saturating_sub(first));
            if here > 0 {
                rank.add(files, &wanted, at, here, first)?;
            }
        }
        at = end;
    }
    if at != len {
        let problem =
            format!("the vector of each rank has {len} elements, and parameters take {at} of it");
        return Err(Error::of_file(Code::BadPieces, path, problem));
    }
    Ok(())
}

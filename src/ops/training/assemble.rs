//! Tensors, made of their pieces: pieces that follow each other are ranges of bytes, and others are gathered.

use std::sync::Arc;

use crate::catalog::{Extents, Tensor};
use crate::error::{Code, Error, Result};
use crate::format::{Pieced, Shard};
use crate::ops::gather::concatenate;
use crate::tensor::{byte_len, shape_text};

/// How often a tensor is cut into parts that are cut themselves: meshes of ranks have few axes.
const MAX_DEPTH: usize = 16;

/// A part of a tensor, and where it is in it.
struct Part {
    offsets: Arc<[u64]>,
    tensor: Tensor,
}

impl Part {
    fn end(&self, axis: usize) -> u64 {
        self.offsets[axis] + self.tensor.shape[axis]
    }
}

/// A box in a tensor.
struct Region {
    offsets: Vec<u64>,
    lens: Vec<u64>,
}

/// The tensor `name` whose pieces are in `shards`.
///
/// # Errors
/// If they do not cover it, or overlap.
pub(super) fn tensor(name: &str, pieced: &Pieced, shards: &[Arc<Shard>]) -> Result<Tensor> {
    let Pieced { dtype, shape, .. } = pieced;
    let refuse = |code, problem: String| {
        let path = pieced
            .pieces
            .first()
            .map(|piece| shards[piece.shard].blob.location());
        let path = path.or_else(|| shards.first().map(|shard| shard.blob.location()));
        let error = Error::new(code, problem).about_tensor(name);
        match path {
            Some(path) => error.in_file(&**path),
            None => error,
        }
    };
    let bytes = byte_len(*dtype, shape).filter(|&bytes| bytes < 1 << 61);
    let bytes = bytes.ok_or_else(|| {
        let shape = shape_text(shape);
        refuse(
            Code::OverLimit,
            format!("its shape is {shape}: that is 2^61 bytes or more"),
        )
    })?;
    if bytes == 0 {
        return Ok(Tensor {
            dtype: *dtype,
            shape: shape.clone(),
            extents: Extents::made(Vec::new()),
            home: None,
        });
    }
    let parts = pieced.pieces.iter().map(|piece| {
        let blob = &shards[piece.shard].blob;
        Part {
            offsets: piece.offsets.clone(),
            tensor: Tensor::placed(name, &piece.stored, blob, None),
        }
    });
    let parts: Vec<Part> = parts.collect();
    let lens = match pieced.is_flat {
        true => vec![shape.iter().product()],
        false => shape.to_vec(),
    };
    if lens.is_empty() {
        let [part] = &parts[..] else {
            return Err(refuse(
                Code::BadPieces,
                "it has no dimensions and not one piece".to_owned(),
            ));
        };
        return Ok(part.tensor.clone());
    }
    let whole = Region {
        offsets: vec![0; lens.len()],
        lens,
    };
    let joined = join(name, &whole, parts, MAX_DEPTH)?;
    let joined = joined.map_err(|problem| refuse(Code::BadPieces, problem))?;
    Ok(joined.slice(0, shape.clone()))
}

/// `parts`, which should cover `region`, as one tensor; what is wrong if they do not.
fn join(
    name: &str,
    region: &Region,
    mut parts: Vec<Part>,
    depth: usize,
) -> Result<std::result::Result<Tensor, String>> {
    let shown = |region: &Region| {
        let (offsets, lens) = (shape_text(&region.offsets), shape_text(&region.lens));
        format!("{lens} elements at {offsets}")
    };
    if let [part] = &parts[..]
        && *part.offsets == *region.offsets
        && *part.tensor.shape == *region.lens
    {
        return Ok(Ok(part.tensor.clone()));
    }
    let hole = || Ok(Err(format!("its pieces do not cover {}", shown(region))));
    if parts.len() < 2 {
        return hole();
    }
    for axis in 0..region.lens.len() {
        parts.sort_by_key(|part| part.offsets[axis]);
        let mut groups: Vec<(u64, u64, Vec<Part>)> = Vec::new();
        let mut is_cut = false;
        // Whether there is a cut is known before parts are moved.
        let mut end = 0;
        for (i, part) in parts.iter().enumerate() {
            is_cut |= i > 0 && part.offsets[axis] >= end;
            end = part.end(axis).max(end);
        }
        if !is_cut {
            continue;
        }
        for part in parts {
            let (start, stop) = (part.offsets[axis], part.end(axis));
            match groups.last_mut() {
                Some((_, end, group)) if start < *end => {
                    *end = stop.max(*end);
                    group.push(part);
                }
                _ => groups.push((start, stop, vec![part])),
            }
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(Err("its pieces are cut in too many ways".to_owned()));
        };
        let mut at = region.offsets[axis];
        let mut tensors = Vec::with_capacity(groups.len());
        for (start, stop, group) in groups {
            if start != at {
                return hole();
            }
            at = stop;
            let mut inside = Region {
                offsets: region.offsets.clone(),
                lens: region.lens.clone(),
            };
            inside.offsets[axis] = start;
            inside.lens[axis] = stop - start;
            match join(name, &inside, group, depth)? {
                Ok(tensor) => tensors.push(tensor),
                problem => return Ok(problem),
            }
        }
        if at != region.offsets[axis] + region.lens[axis] {
            return hole();
        }
        return concatenate(name, &tensors, axis).map(Ok);
    }
    Ok(Err(format!("pieces of it overlap in {}", shown(region))))
}

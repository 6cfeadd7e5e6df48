//! Distributed tensors (`torch.distributed.tensor.DTensor`), as a pickle describes them: the tensor of this rank, and a
//! specification of how it was cut. Modules have moved between versions of torch, so classes are known by their names alone.

use crate::format::torch::pickle::{Id, Pickle};

/// How deep parameters are looked into.
const MAX_WRAPPERS: usize = 4;

/// How a tensor is spread over a mesh of ranks.
#[derive(Debug)]
pub(super) struct Distributed {
    /// That of the whole.
    pub(super) shape: Vec<u64>,
    /// For each axis of the mesh, the dimension that it cuts, if it does.
    pub(super) placements: Vec<Option<usize>>,
    /// Where this rank is in the mesh.
    pub(super) coordinates: Vec<u64>,
}

/// The tensor that the rank has of `id`, and how that is spread, if it is a distributed tensor.
///
/// # Errors
/// If it is spread in a way that is not known.
pub(super) fn distributed(
    pickle: &Pickle,
    mut id: Id,
    rank: u64,
) -> Result<Option<(Id, Distributed)>, String> {
    for _ in 0..MAX_WRAPPERS {
        match pickle.call(id) {
            Some((
                ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"),
                &[data, ..],
            )) => {
                id = data;
            }
            _ => break,
        }
    }
    if pickle.class(id) == Some("ShardedTensor") {
        return Err("it is a ShardedTensor of FSDP1, which does not say how it is cut; save with FSDP2, or by torch.distributed.checkpoint".to_owned());
    }
    let Some((("torch._tensor", "_rebuild_from_type_v2"), &[function, class, arguments, state])) =
        pickle.call(id)
    else {
        return Ok(None);
    };
    let is_wrapper = matches!(
        pickle.global(function),
        Some((_, "_rebuild_wrapper_subclass"))
    );
    if !is_wrapper || !matches!(pickle.global(class), Some((_, "DTensor"))) {
        return Ok(None);
    }
    let read = || {
        let shape = pickle.counts(*pickle.tuple(arguments)?.get(2)?)?;
        let attributes = match pickle.tuple(state) {
            Some(&[_, attributes]) => attributes,
            _ => state,
        };
        let local = pickle.entry(attributes, "_local_tensor")?;
        let spec = pickle.entry(attributes, "_spec")?;
        let placements = pickle.tuple(pickle.attribute(spec, "placements")?)?;
        Some((shape, local, spec, placements))
    };
    let unknown = || "its description is not one of torch's DTensor".to_owned();
    let (shape, local, spec, listed) = read().ok_or_else(unknown)?;
    let mut placements = Vec::with_capacity(listed.len());
    for &placement in listed {
        placements.push(match pickle.class(placement) {
            Some("Replicate") => None,
            Some("Shard") => {
                let dimension = pickle.attribute(placement, "dim");
                let dimension = dimension.or_else(|| match pickle.call(placement) {
                    Some((_, &[dimension])) => Some(dimension),
                    _ => None,
                });
                let dimension = dimension.and_then(|id| pickle.count(id));
                let inside = dimension.filter(|&dimension| dimension < shape.len() as u64);
                Some(inside.ok_or_else(unknown)? as usize)
            }
            Some(other) => {
                return Err(format!(
                    "it is spread by {other}, and only Shard and Replicate are read"
                ));
            }
            None => return Err(unknown()),
        });
    }
    if !is_in_order(pickle, spec) {
        return Err("axes of its mesh cut a dimension in another order than their own".to_owned());
    }
    let mesh = pickle.attribute(spec, "mesh").ok_or_else(unknown)?;
    let coordinates = pickle.attribute(mesh, "_coordinate_on_dim");
    let coordinates = coordinates.and_then(|id| pickle.counts(id));
    let coordinates = match coordinates {
        Some(coordinates) if coordinates.len() == placements.len() => coordinates,
        None if placements.len() == 1 => vec![rank],
        _ => return Err("its mesh does not say where this rank is in it".to_owned()),
    };
    // A mesh has no more ranks than there can be files.
    if coordinates.iter().any(|&at| at > u64::from(u32::MAX)) {
        return Err(unknown());
    }
    let of = Distributed {
        shape,
        placements,
        coordinates,
    };
    Ok(Some((local, of)))
}

/// Whether axes that cut one dimension do so in their order, which is all that older versions know.
fn is_in_order(pickle: &Pickle, spec: Id) -> bool {
    let order = pickle.attribute(spec, "shard_order");
    let entries = order.and_then(|id| pickle.tuple(id)).unwrap_or_default();
    entries.iter().all(|&entry| match pickle.call(entry) {
        Some((_, &[_, axes])) => pickle.counts(axes).is_some_and(|axes| axes.is_sorted()),
        _ => false,
    })
}

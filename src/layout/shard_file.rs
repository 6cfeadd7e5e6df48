//! One file of a view that holds tensors: a source file as it is, or the tensors packed by the
//! container of views.

use std::borrow::Cow;
use std::sync::Arc;

use crate::catalog::{Extents, Sources, Tensor};
use crate::error::{Hint, Result};
use crate::format::{Entry, OUTPUT, Part};
use crate::layout::plan::PlannedTensor;
use crate::runs::Runs;
use crate::source::Blob;
use crate::tensor::Name;

/// A file and the tensors in it, in offset order.
pub(super) struct ShardFile {
    pub content: Extents,
    pub tensors: Vec<PlannedTensor>,
}

/// The file that holds `tensors`: a whole source file if one holds exactly them. Where they are too
/// many for a file, the error has this `advice`.
pub(super) fn build(
    name: &str,
    tensors: &[(&Name, &Tensor)],
    sources: &Sources,
    advice: &Hint,
) -> Result<ShardFile> {
    match whole_file(tensors, sources) {
        Some(file) => Ok(as_it_is(tensors, file)),
        None => fresh(name, tensors, advice),
    }
}

/// The source file that holds exactly `tensors`, in the container of views, if there is one.
pub(super) fn whole_file<'a>(
    tensors: &[(&Name, &Tensor)],
    sources: &'a Sources,
) -> Option<&'a Arc<dyn Blob>> {
    let (blob, _) = tensors.first()?.1.as_stored()?;
    let shard = sources.shard(blob)?;
    let unchanged = |(name, tensor): &(&Name, &Tensor)| {
        let (Some((of, offset)), Some(stored)) = (tensor.as_stored(), shard.tensors.get(*name))
        else {
            return false;
        };
        Arc::ptr_eq(of, blob)
            && (tensor.dtype, &tensor.shape, offset) == (stored.dtype, &stored.shape, stored.offset)
    };
    let is_whole = shard.container == OUTPUT.container()
        && tensors.len() == shard.tensors.len()
        && tensors.iter().all(unchanged);
    is_whole.then_some(&shard.blob)
}

fn as_it_is(tensors: &[(&Name, &Tensor)], blob: &Arc<dyn Blob>) -> ShardFile {
    let mut planned: Vec<PlannedTensor> = tensors
        .iter()
        .map(|(name, tensor)| {
            let (_, offset) = tensor
                .as_stored()
                .expect("a whole source file holds stored tensors");
            planned(name, tensor, offset)
        })
        .collect();
    planned.sort_by_key(|tensor| tensor.offset);
    ShardFile {
        content: Extents::whole(blob.clone()),
        tensors: planned,
    }
}

fn fresh(name: &str, tensors: &[(&Name, &Tensor)], advice: &Hint) -> Result<ShardFile> {
    let parts = OUTPUT.pack(name, &entries(tensors), advice)?;
    let mut listed = Vec::with_capacity(tensors.len());
    let mut offset = 0;
    for part in &parts {
        offset += match part {
            Part::Made(bytes) => bytes.len() as u64,
            Part::Tensor(position) => {
                let (name, tensor) = tensors[*position];
                listed.push(planned(name, tensor, offset));
                tensor.len()
            }
        };
    }
    let content = parts.into_iter().map(|part| match part {
        Part::Made(bytes) => Cow::Owned(Extents::made(bytes)),
        Part::Tensor(position) => Cow::Borrowed(&tensors[position].1.extents),
    });
    Ok(ShardFile {
        content: Runs::concat(content),
        tensors: listed,
    })
}

fn entries<'a>(tensors: &[(&'a Name, &'a Tensor)]) -> Vec<Entry<'a>> {
    let entry = |&(name, tensor): &(&'a Name, &'a Tensor)| Entry {
        name,
        dtype: tensor.dtype,
        shape: &tensor.shape,
        len: tensor.len(),
    };
    tensors.iter().map(entry).collect()
}

fn planned(name: &Name, tensor: &Tensor, offset: u64) -> PlannedTensor {
    PlannedTensor {
        name: name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        encoded: None,
        offset,
        len: tensor.len(),
        from: tensor.origin().clone(),
        computed: !tensor.is_stored(),
        extents: tensor.extents.clone(),
    }
}

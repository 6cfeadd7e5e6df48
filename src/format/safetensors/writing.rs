//! One safetensors file: a source file as it is, or a fresh header and a segment per tensor.
//!
//! | rule of a fresh header | why |
//! |---|---|
//! | `__metadata__` is `{"format": "pt"}` | some loaders refuse anything else |
//! | JSON order = offset order, no holes | some loaders take the end from the last entry |
//! | tensors in name order | loaders read by name, and so from front to back |
//! | byte lengths that are not multiples of 8 come last, larger elements first | alignment |
//! | padded so that data starts at a multiple of 4096 | page-aligned tensors |

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{Error as _, SerializeMap, Serializer};

use crate::catalog::{Extents, Sources, Tensor};
use crate::error::{Error, Result};
use crate::layout::PlannedTensor;
use crate::runs::Runs;
use crate::source::{Blob, MAX_HEADER_BYTES, data_start};
use crate::tensor::{Dtype, Name};

/// Tensor data of a fresh file starts at a multiple of this.
const DATA_ALIGNMENT: u64 = 4096;
/// A tensor whose length is a multiple of this leaves the next one aligned for any dtype.
const TENSOR_ALIGNMENT: u64 = 8;

/// A file and the tensors in it, in offset order.
pub(crate) struct ShardFile {
    pub content: Extents,
    pub tensors: Vec<PlannedTensor>,
}

/// The file that holds `tensors`: a whole source file if one holds exactly them. Where they are too
/// many for a file, the error has this `advice`.
pub(crate) fn build(
    name: &str,
    tensors: &[(&Name, &Tensor)],
    sources: &Sources,
    advice: &str,
) -> Result<ShardFile> {
    match whole_file(tensors, sources) {
        Some(file) => Ok(as_it_is(tensors, file)),
        None => fresh(name, tensors, advice),
    }
}

/// The source file whose header names exactly `tensors`, if there is one.
fn whole_file<'a>(tensors: &[(&Name, &Tensor)], sources: &'a Sources) -> Option<&'a Arc<dyn Blob>> {
    let (blob, _) = tensors.first()?.1.as_stored()?;
    let shard = sources.shard(blob)?;
    let unchanged = |(name, tensor): &(&Name, &Tensor)| {
        let (Some((of, offset)), Some(stored)) = (tensor.as_stored(), shard.header.get(*name))
        else {
            return false;
        };
        Arc::ptr_eq(of, blob)
            && (tensor.dtype, &tensor.shape, offset) == (stored.dtype, &stored.shape, stored.offset)
    };
    (tensors.len() == shard.header.len() && tensors.iter().all(unchanged)).then_some(&shard.blob)
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

fn fresh(name: &str, tensors: &[(&Name, &Tensor)], advice: &str) -> Result<ShardFile> {
    let mut ordered = tensors.to_vec();
    ordered.sort_by_key(|(name, tensor)| {
        let aligned = tensor.len().is_multiple_of(TENSOR_ALIGNMENT);
        let element_bits = if aligned { 0 } else { tensor.dtype.bitsize() };
        (!aligned, Reverse(element_bits), *name)
    });
    let header = header(name, &ordered, advice)?;
    let start = header.len() as u64;

    let header = Extents::made(header);
    let mut parts = vec![&header];
    let mut listed = Vec::with_capacity(ordered.len());
    let mut offset = start;
    for (name, tensor) in ordered {
        listed.push(planned(name, tensor, offset));
        offset += tensor.len();
        parts.push(&tensor.extents);
    }
    Ok(ShardFile {
        content: Runs::concat(parts),
        tensors: listed,
    })
}

/// Length field, JSON and padding.
fn header(shard: &str, tensors: &[(&Name, &Tensor)], advice: &str) -> Result<Vec<u8>> {
    let invalid = |problem: String| Error::Request(format!("{shard} of the view: {problem}"));
    let mut header = vec![0; data_start(0) as usize];
    serde_json::to_writer(&mut header, &Header(tensors)).map_err(|e| invalid(e.to_string()))?;
    let total = (header.len() as u64).next_multiple_of(DATA_ALIGNMENT);
    let length = total - data_start(0);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(format!(
            "its header would take {length} bytes, and readers accept at most {MAX_HEADER_BYTES}; {advice}"
        )));
    }
    header.resize(total as usize, b' ');
    header.shrink_to_fit();
    header[..data_start(0) as usize].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}

/// The JSON of a header for tensors that follow each other in this order.
struct Header<'a>(&'a [(&'a Name, &'a Tensor)]);

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry<'a> {
            dtype: Dtype,
            shape: &'a [u64],
            data_offsets: (u64, u64),
        }
        let mut map = serializer.serialize_map(Some(1 + self.0.len()))?;
        map.serialize_entry("__metadata__", &BTreeMap::from([("format", "pt")]))?;
        let mut begin: u64 = 0;
        for (name, tensor) in self.0 {
            let end = begin.checked_add(tensor.len());
            let end = end.ok_or_else(|| S::Error::custom("its tensors have 2^64 bytes or more"))?;
            let entry = Entry {
                dtype: tensor.dtype,
                shape: &tensor.shape,
                data_offsets: (begin, end),
            };
            map.serialize_entry(&***name, &entry)?;
            begin = end;
        }
        map.end()
    }
}

fn planned(name: &Name, tensor: &Tensor, offset: u64) -> PlannedTensor {
    PlannedTensor {
        name: name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        offset,
        len: tensor.len(),
        from: tensor.origin().clone(),
        computed: !tensor.is_stored(),
        extents: tensor.extents.clone(),
    }
}

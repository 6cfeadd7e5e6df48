//! Tensors, packed into a safetensors file: a header, and the tensors after each other.
//!
//! | rule of the header | why |
//! |---|---|
//! | `__metadata__` is `{"format": "pt"}` | some loaders refuse anything else |
//! | JSON order = offset order, no holes | some loaders take the end from the last entry |
//! | tensors in name order | loaders read by name, and so from front to back |
//! | byte lengths that are not multiples of 8 come last, larger elements first | alignment |
//! | padded so that data starts at a multiple of 4096 | page-aligned tensors |

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{Error as _, SerializeMap, Serializer};

use crate::error::{Code, Error, Hint, Result};
use crate::format::packing::{Entry, Part};
use crate::format::safetensors::header::{MAX_HEADER_BYTES, data_start};
use crate::tensor::Dtype;

/// Tensor data of a file starts at a multiple of this.
const DATA_ALIGNMENT: u64 = 4096;
/// A tensor whose length is a multiple of this leaves the next one aligned for any dtype.
const TENSOR_ALIGNMENT: u64 = 8;

/// The file called `file` that holds `tensors`. Where they are too many for a file, the error has
/// this `advice`.
pub(in crate::format) fn pack(file: &str, tensors: &[Entry], advice: &Hint) -> Result<Vec<Part>> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&position| {
        let tensor = &tensors[position];
        let aligned = tensor.len.is_multiple_of(TENSOR_ALIGNMENT);
        let element_bits = if aligned { 0 } else { tensor.dtype.bitsize() };
        (!aligned, Reverse(element_bits), tensor.name)
    });
    let ordered = Header {
        tensors,
        order: &order,
    };
    let header = header(file, &ordered, advice)?;
    let mut parts = Vec::with_capacity(1 + order.len());
    parts.push(Part::Made(header));
    parts.extend(order.into_iter().map(Part::Tensor));
    Ok(parts)
}

/// Length field, JSON and padding.
fn header(shard: &str, content: &Header, advice: &Hint) -> Result<Vec<u8>> {
    let invalid =
        |problem: String| Error::new(Code::ShardLimit, format!("{shard} of the view: {problem}"));
    let mut header = vec![0; data_start(0) as usize];
    serde_json::to_writer(&mut header, content)
        .map_err(|e| invalid(e.to_string()).with_hint(advice.clone()))?;
    let total = (header.len() as u64).next_multiple_of(DATA_ALIGNMENT);
    let length = total - data_start(0);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(format!(
            "its header would take {length} bytes, and readers accept at most {MAX_HEADER_BYTES}"
        ))
        .with_hint(advice.clone()));
    }
    header.resize(total as usize, b' ');
    header.shrink_to_fit();
    header[..data_start(0) as usize].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}

/// The JSON of a header for tensors that follow each other in this order.
struct Header<'a> {
    tensors: &'a [Entry<'a>],
    /// Positions in `tensors`.
    order: &'a [usize],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Described<'a> {
            dtype: Dtype,
            shape: &'a [u64],
            data_offsets: (u64, u64),
        }
        let mut map = serializer.serialize_map(Some(1 + self.order.len()))?;
        map.serialize_entry("__metadata__", &BTreeMap::from([("format", "pt")]))?;
        let mut begin: u64 = 0;
        for &position in self.order {
            let tensor = &self.tensors[position];
            let end = begin.checked_add(tensor.len);
            let end = end.ok_or_else(|| S::Error::custom("its tensors have 2^64 bytes or more"))?;
            let entry = Described {
                dtype: tensor.dtype,
                shape: tensor.shape,
                data_offsets: (begin, end),
            };
            map.serialize_entry(&**tensor.name, &entry)?;
            begin = end;
        }
        map.end()
    }
}

//! The header of a safetensors file: where each tensor is.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | header length `n`, little-endian u64 |
//! | 8..8+n | JSON: name → dtype, shape, data offsets; may be padded with spaces |
//! | 8+n.. | tensor data, no holes, up to the end of the file |

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::StoredTensor;
use crate::format::text::Text;
use crate::memory;
use crate::source::{Blob, pointer};
use crate::tensor::{Name, Shape, byte_len};

/// The longest header that readers accept, in bytes.
pub(super) const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the length field in front of the header.
const LENGTH_BYTES: u64 = 8;

/// Where tensor data starts in a file whose header is `header_len` bytes of JSON.
pub fn data_start(header_len: u64) -> u64 {
    LENGTH_BYTES + header_len
}

/// Reads and validates the header of `file`; tensors come in the order of their offsets.
///
/// # Errors
/// Whatever the format forbids: a header that is too long, is not JSON, or disagrees with itself
/// or with the length of the file. The error names the tensor where there is one.
pub fn read(file: &dyn Blob) -> Result<IndexMap<Name, StoredTensor>> {
    let (tensors, _) = read_with_metadata(file)?;
    Ok(tensors)
}

/// The same with what the header has under `__metadata__`.
///
/// # Errors
/// As [`read`].
pub(in crate::format) fn read_with_metadata(file: &dyn Blob) -> Result<(Tensors, Metadata)> {
    let path = file.location();
    if file.len() < LENGTH_BYTES {
        return Err(Error::of_file(
            Code::Truncated,
            path,
            format!(
                "not a safetensors file: it has {} bytes, and the header length alone takes 8",
                file.len()
            ),
        )
        .with_hint("is the download complete?"));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_at(&mut length, 0)?;
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER_BYTES {
        return Err(not_a_header(file, length));
    }
    if data_start(header_len) > file.len() {
        return Err(Error::of_file(
            Code::Truncated,
            path,
            format!(
                "the header claims {header_len} bytes, but the file has only {} bytes",
                file.len()
            ),
        )
        .with_hint("is the download complete?"));
    }
    let mut json = memory::zeros(header_len)?;
    file.read_at(&mut json, LENGTH_BYTES)?;
    parse_all(&json, file.len(), path)
}

/// The error that `file` does not begin with the length of a header, but with `start`.
fn not_a_header(file: &dyn Blob, start: [u8; LENGTH_BYTES as usize]) -> Error {
    let path = file.location();
    if let Some(pointer) = pointer(file) {
        return pointer.error(path);
    }
    let found = match start {
        [b'P', b'K', 3, 4, ..] => "it is a zip archive, as torch.save writes it",
        [0x80, 2..=5, ..] => "it is a pickle",
        [b'G', b'G', b'U', b'F', ..] => "it is GGUF",
        [b'<', ..] => {
            "it is a page of HTML or XML, maybe the answer of a server that refused a download"
        }
        _ => {
            let header_len = u64::from_le_bytes(start);
            let problem = format!(
                "the header claims {header_len} bytes; at most {MAX_HEADER_BYTES} are allowed, so this is not a safetensors file"
            );
            return Error::of_file(Code::BadHeader, path, problem);
        }
    };
    let problem = format!("this is not a safetensors file: {found}");
    Error::of_file(Code::BadHeader, path, problem)
}

/// Parses and validates `json`, the header of a file at `path` that has `file_len` bytes; tensors
/// come in the order of their offsets.
///
/// # Errors
/// As [`read`].
pub fn parse(json: &[u8], file_len: u64, path: &Path) -> Result<IndexMap<Name, StoredTensor>> {
    let (tensors, _) = parse_all(json, file_len, path)?;
    Ok(tensors)
}

fn parse_all(json: &[u8], file_len: u64, path: &Path) -> Result<(Tensors, Metadata)> {
    let invalid = |e: &dyn fmt::Display| {
        let problem = format!("the safetensors header is invalid: {e}");
        Error::of_file(Code::BadHeader, path, problem)
    };
    let json = std::str::from_utf8(json).map_err(|e| invalid(&e))?;
    let entries: Entries = serde_json::from_str(json)
        .map_err(|e| faulty_entry(path, json).unwrap_or_else(|| invalid(&e)))?;
    let start = data_start(json.len() as u64);
    let Entries { tensors, metadata } = entries;
    let tensors = in_offset_order(path, tensors, start)?;
    // Lengths that add up to more than 64 bits are as wrong as any other.
    let (last, expected) = match tensors.last() {
        Some((name, tensor)) => (&**name, tensor.offset.saturating_add(tensor.len)),
        None => ("", start),
    };
    if expected != file_len {
        return Err(Error::of_tensor(Code::Truncated, path,
            last,
            format!(
                "this last tensor ends at byte {expected} by the header, but the file has {file_len} bytes"
            ),
        ).with_hint("is the download complete?"));
    }
    Ok((tensors, metadata))
}

/// The tensors of `entries` in the order of their offsets, checked to cover the bytes from `start`.
fn in_offset_order(
    path: &Path,
    entries: Vec<(Name, TensorInfo)>,
    start: u64,
) -> Result<IndexMap<Name, StoredTensor>> {
    let refuse =
        |name: &str, problem: String| Err(Error::of_tensor(Code::BadHeader, path, name, problem));
    let mut tensors = IndexMap::with_capacity(entries.len());
    for (name, info) in entries {
        let shape: Shape = info.shape.iter().map(|&d| d as u64).collect();
        let (begin, end) = info.data_offsets;
        let len = byte_len(info.dtype, &shape);
        if begin > end || len != Some((end - begin) as u64) {
            let expected = len.map_or("an impossible number of".to_owned(), |n| n.to_string());
            let problem = format!(
                "shape {shape:?} of {} takes {expected} bytes, but the data offsets are {begin}..{end}",
                info.dtype
            );
            return refuse(&name, problem);
        }
        let tensor = StoredTensor {
            dtype: info.dtype,
            shape,
            offset: begin as u64,
            len: (end - begin) as u64,
            strides: None,
        };
        // Parsers keep one of the two, and not all the same.
        if tensors.contains_key(&name) {
            return refuse(&name, "the safetensors header names it twice".to_owned());
        }
        tensors.insert(name, tensor);
    }
    tensors.sort_by_key(|_, tensor| (tensor.offset, tensor.len));
    let mut previous = 0;
    for (name, tensor) in &mut tensors {
        let begin = tensor.offset;
        if begin != previous {
            let problem = format!(
                "its data starts at offset {begin}, but the tensor before it ends at {previous}: tensors must neither overlap nor leave holes"
            );
            return refuse(name, problem);
        }
        previous += tensor.len;
        tensor.offset = tensor.offset.saturating_add(start);
    }
    Ok(tensors)
}

type Tensors = IndexMap<Name, StoredTensor>;

/// Texts by name.
type Metadata = HashMap<String, String>;

/// What a header says, before any of it is checked.
struct Entries {
    tensors: Vec<(Name, TensorInfo)>,
    metadata: Metadata,
}

const METADATA: &str = "__metadata__";

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                let mut metadata: Option<Option<Metadata>> = None;
                while let Some(Text(key)) = map.next_key()? {
                    if key != METADATA {
                        let Entry(info) = map.next_value()?;
                        entries.push((key.into(), info));
                    } else if metadata.replace(map.next_value()?).is_some() {
                        return Err(A::Error::duplicate_field(METADATA));
                    }
                }
                Ok(Entries {
                    tensors: entries,
                    metadata: metadata.flatten().unwrap_or_default(),
                })
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// What a header says of one tensor.
///
/// As the type in it parses itself, but what it does not know is parsed too before it is left out, as
/// the safetensors crate does: else a header could be read here that nobody else reads.
struct Entry(TensorInfo);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entry, A::Error> {
                let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
                while let Some(Text(key)) = map.next_key()? {
                    let twice = match &*key {
                        "dtype" => dtype.replace(map.next_value()?).is_some(),
                        "shape" => shape.replace(map.next_value()?).is_some(),
                        "data_offsets" => data_offsets.replace(map.next_value()?).is_some(),
                        _ => {
                            map.next_value::<Value>()?;
                            false
                        }
                    };
                    if twice {
                        return Err(A::Error::custom(format!("duplicate field `{key}`")));
                    }
                }
                let missing = A::Error::missing_field;
                Ok(Entry(TensorInfo {
                    dtype: dtype.ok_or_else(|| missing("dtype"))?,
                    shape: shape.ok_or_else(|| missing("shape"))?,
                    data_offsets: data_offsets.ok_or_else(|| missing("data_offsets"))?,
                }))
            }
        }
        deserializer.deserialize_map(EntryVisitor)
    }
}

/// The first tensor entry that cannot be parsed.
fn faulty_entry(path: &Path, json: &str) -> Option<Error> {
    let entries: serde_json::Map<String, Value> = serde_json::from_str(json).ok()?;
    entries
        .into_iter()
        .filter(|(name, _)| name != METADATA)
        .find_map(|(name, value)| {
            let fault = serde_json::from_value::<Entry>(value).err()?;
            Some(Error::of_tensor(
                Code::BadHeader,
                path,
                name,
                fault.to_string(),
            ))
        })
}

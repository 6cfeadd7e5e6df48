//! The header of a safetensors file: where each tensor lies.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | header length `n`, little-endian u64 |
//! | 8..8+n | JSON: name → dtype, shape, data offsets; may be padded with spaces |
//! | 8+n.. | tensor data, no holes, up to the end of the file |

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::source::SourceFile;
use crate::tensor::byte_len;

/// The longest header that readers accept, in bytes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the length field in front of the header.
const LENGTH_BYTES: u64 = 8;

/// Where tensor data starts in a file whose header is `header_len` bytes of JSON.
pub fn data_start(header_len: u64) -> u64 {
    LENGTH_BYTES + header_len
}

/// A tensor as a header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Offset of the first byte from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Reads and validates the header of `file`; tensors come in the order of their offsets.
///
/// # Errors
/// Whatever the format forbids: a header that is too long, is not JSON, or disagrees with itself
/// or with the length of the file. The error names the tensor where there is one.
pub fn read(file: &SourceFile) -> Result<IndexMap<String, StoredTensor>> {
    let path = file.path();
    if file.len() < LENGTH_BYTES {
        return Err(Error::checkpoint(
            path,
            format!(
                "not a safetensors file: it has {} bytes, and the header length alone takes 8; is the download complete?",
                file.len()
            ),
        ));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, 0)?;
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER_BYTES {
        return Err(Error::checkpoint(
            path,
            format!(
                "the header claims {header_len} bytes; at most {MAX_HEADER_BYTES} are allowed, so this is not a safetensors file"
            ),
        ));
    }
    if data_start(header_len) > file.len() {
        return Err(Error::checkpoint(
            path,
            format!(
                "the header claims {header_len} bytes, but the file has only {} bytes; is the download complete?",
                file.len()
            ),
        ));
    }
    let mut json = vec![0; header_len as usize];
    file.read_exact_at(&mut json, LENGTH_BYTES)?;
    parse(&json, file.len(), path)
}

/// Parses and validates `json`, the header of a file at `path` that has `file_len` bytes; tensors
/// come in the order of their offsets.
///
/// # Errors
/// As [`read`].
pub fn parse(json: &[u8], file_len: u64, path: &Path) -> Result<IndexMap<String, StoredTensor>> {
    if let Some(name) = repeated_key(json) {
        return Err(Error::tensor(
            path,
            name,
            "the safetensors header names it twice",
        ));
    }
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|e| diagnose(path, json).unwrap_or_else(|| invalid(path, &e.to_string())))?;

    let start = data_start(json.len() as u64);
    // Lengths that add up to more than 64 bits are as wrong as any other.
    let expected = start.saturating_add(metadata.data_len() as u64);
    if expected != file_len {
        let last = metadata.offset_keys().pop().unwrap_or_default();
        return Err(Error::tensor(
            path,
            last,
            format!(
                "this last tensor ends at byte {expected} by the header, but the file has {file_len} bytes; is the download complete?"
            ),
        ));
    }
    let mut tensors: Vec<(String, StoredTensor)> = metadata
        .offset_keys()
        .into_iter()
        .filter_map(|name| {
            let info = metadata.info(&name)?;
            let (begin, end) = info.data_offsets;
            let tensor = StoredTensor {
                dtype: info.dtype,
                shape: info.shape.iter().map(|&d| d as u64).collect(),
                offset: start + begin as u64,
                len: (end - begin) as u64,
            };
            Some((name, tensor))
        })
        .collect();
    // Tensors without bytes share their offset with others; the parser gives them in any order.
    tensors.sort_by(|(a, x), (b, y)| (x.offset, x.len, a).cmp(&(y.offset, y.len, b)));
    Ok(tensors.into_iter().collect())
}

fn invalid(path: &Path, problem: &str) -> Error {
    Error::checkpoint(
        path,
        format!("the safetensors header is invalid: {problem}"),
    )
}

/// The first key that a JSON object has twice. Parsers keep one of the two, and not all the same.
fn repeated_key(json: &[u8]) -> Option<String> {
    struct Keys(Option<String>);
    impl<'de> Deserialize<'de> for Keys {
        fn deserialize<D: Deserializer<'de>>(
            deserializer: D,
        ) -> std::result::Result<Self, D::Error> {
            deserializer.deserialize_map(KeysVisitor)
        }
    }
    struct KeysVisitor;
    impl<'de> Visitor<'de> for KeysVisitor {
        type Value = Keys;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Keys, A::Error> {
            let mut seen = HashSet::new();
            let mut repeated = None;
            while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if repeated.is_none() {
                    repeated = seen.replace(key);
                }
            }
            Ok(Keys(repeated))
        }
    }
    // What is not an object is refused where it is parsed.
    serde_json::from_slice::<Keys>(json).ok()?.0
}

/// The first tensor entry that explains why the header was refused.
fn diagnose(path: &Path, json: &[u8]) -> Option<Error> {
    let entries: serde_json::Map<String, Value> = serde_json::from_slice(json).ok()?;
    let mut parsed = Vec::new();
    for (name, value) in entries {
        if name == "__metadata__" {
            continue;
        }
        let info: TensorInfo = match serde_json::from_value(value) {
            Ok(info) => info,
            Err(e) => return Some(Error::tensor(path, name, e.to_string())),
        };
        let shape: Vec<u64> = info.shape.iter().map(|&d| d as u64).collect();
        let (begin, end) = info.data_offsets;
        match byte_len(info.dtype, &shape) {
            Some(len) if begin <= end && (end - begin) as u64 == len => {}
            expected => {
                let expected =
                    expected.map_or("an impossible number of".to_owned(), |n| n.to_string());
                return Some(Error::tensor(
                    path,
                    name,
                    format!(
                        "shape {shape:?} of {} takes {expected} bytes, but the data offsets are {begin}..{end}",
                        info.dtype
                    ),
                ));
            }
        }
        parsed.push((begin, end, name));
    }
    parsed.sort();
    let mut previous = 0;
    for (begin, end, name) in parsed {
        if begin != previous {
            return Some(Error::tensor(
                path,
                name,
                format!(
                    "its data starts at offset {begin}, but the tensor before it ends at {previous}: tensors must neither overlap nor leave holes"
                ),
            ));
        }
        previous = end;
    }
    None
}

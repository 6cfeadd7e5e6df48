//! Reading a header, of which nothing is taken for granted.

use std::path::Path;

use indexmap::IndexMap;

use super::cursor::Cursor;
use super::header::{Header, Keys, TensorInfo};
use super::tensor_type::TensorType;
use super::value::{Array, Numbers, Strings, Value, number};
use super::value_type::ValueType;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS, MAX_NAME_BYTES};
use crate::error::{Code, Error, Result};
use crate::shown::Show;
use crate::source::{Blob, pointer};
use crate::tensor::{Name, Shape, shape_text};

/// The versions that can be read.
const VERSIONS: [u32; 2] = [2, 3];
/// Bytes that a key takes at least: an empty name, a type, a truth value.
const MIN_KEY_BYTES: u64 = 8 + 4 + 1;
/// Bytes that a tensor info takes at least: an empty name, no dimensions, type and offset.
const MIN_INFO_BYTES: u64 = 8 + 4 + 4 + 8;

/// Reads and validates the header of `file`.
///
/// # Errors
/// Whatever llama.cpp refuses, too: counts, strings, types, dimensions or offsets that contradict each
/// other or the length of the file; and a header of more than 512 MiB.
pub fn read(file: &dyn Blob) -> Result<Header> {
    let path = file.location();
    let mut cursor = Cursor::new(file);
    let version = version(&mut cursor, file)?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let key_count = cursor.u64("the number of keys")?;
    check_count(&cursor, path, key_count, MIN_KEY_BYTES, "keys")?;
    check_count(&cursor, path, tensor_count, MIN_INFO_BYTES, "tensors")?;
    let mut keys = Keys::new();
    for _ in 0..key_count {
        let key = cursor.string("a key")?;
        let key = text(path, key, "a key")?;
        let value = value(&mut cursor, path, &key)?;
        if keys.contains_key(&key) {
            return Err(bad(path, format!("the key {key} is there twice")));
        }
        keys.insert(key, value);
    }
    let alignment = alignment(path, &keys)?;
    let mut infos = IndexMap::new();
    for _ in 0..tensor_count {
        let (name, info) = info(&mut cursor, path)?;
        if infos.contains_key(&name) {
            let problem = "the header has it twice";
            return Err(Error::of_tensor(Code::BadHeader, path, &name, problem));
        }
        infos.insert(name, info);
    }
    let data_start = padded(cursor.position(), alignment);
    let data_start = data_start.ok_or_else(|| bad_alignment(path))?;
    let tensors = placed(file, infos, alignment, data_start)?;
    Ok(Header {
        version,
        keys,
        tensors,
        alignment,
        data_start,
    })
}

/// `bytes` up to a multiple of `alignment`, a power of two.
pub(super) fn padded(bytes: u64, alignment: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(alignment)
}

fn bad(path: &Path, problem: String) -> Error {
    let problem = format!("the GGUF header is invalid: {problem}");
    Error::of_file(Code::BadHeader, path, problem)
}

fn bad_alignment(path: &Path) -> Error {
    bad(
        path,
        format!("{ALIGNMENT_KEY} must be a power of two of type u32"),
    )
}

/// Checks the first bytes.
fn version(cursor: &mut Cursor, file: &dyn Blob) -> Result<u32> {
    let path = file.location();
    let magic = cursor.take(4, "the first bytes")?;
    if magic != MAGIC {
        if let Some(pointer) = pointer(file) {
            return Err(pointer.error(path));
        }
        let problem = "this is not a GGUF file: it does not begin with GGUF";
        return Err(Error::of_file(Code::BadHeader, path, problem));
    }
    let version = cursor.u32("the version")?;
    if VERSIONS.contains(&version) {
        return Ok(version);
    }
    let what = if VERSIONS.contains(&version.swap_bytes()) {
        "it is big-endian"
    } else {
        &format!("its version is {version}")
    };
    let problem = format!("{what}; only little-endian GGUF of version 2 or 3 can be read");
    Err(Error::of_file(Code::BadHeader, path, problem))
}

/// Checks that `count` things of at least `min` bytes each fit in the rest of the file.
fn check_count(cursor: &Cursor, path: &Path, count: u64, min: u64, what: &str) -> Result<()> {
    if count
        .checked_mul(min)
        .is_none_or(|b| b > cursor.remaining())
    {
        let left = cursor.remaining();
        return Err(bad(
            path,
            format!("it claims {count} {what}, and only {left} bytes follow"),
        ));
    }
    Ok(())
}

fn text(path: &Path, bytes: &[u8], what: &str) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(bad(path, format!("{what} is not valid UTF-8"))),
    }
}

fn value_type(cursor: &mut Cursor, path: &Path, key: &str) -> Result<ValueType> {
    let id = cursor.u32("the type of a value")?;
    let known = ValueType::from_id(id);
    known.ok_or_else(|| {
        let key = key.shown();
        bad(
            path,
            format!("the value of {key} is of the unknown type {id}"),
        )
    })
}

/// The value of `key`.
fn value(cursor: &mut Cursor, path: &Path, key: &str) -> Result<Value> {
    match value_type(cursor, path, key)? {
        ValueType::String => {
            let bytes = cursor.string("a text")?;
            let value = text(path, bytes, &format!("the value of {}", key.shown()))?;
            Ok(Value::String(value))
        }
        ValueType::Array => array(cursor, path, key).map(Value::Array),
        plain => {
            let width = plain.width().expect("neither a string nor an array");
            let bytes = cursor.take(width as u64, "a number")?;
            Ok(number(plain, bytes).expect("as many bytes as it has"))
        }
    }
}

fn array(cursor: &mut Cursor, path: &Path, key: &str) -> Result<Array> {
    let element = value_type(cursor, path, key)?;
    let count = cursor.u64("the length of an array")?;
    match (element, element.width()) {
        (ValueType::Array, _) => {
            let key = key.shown();
            Err(bad(path, format!("{key} is an array of arrays")))
        }
        (_, Some(width)) => {
            check_count(cursor, path, count, width as u64, "elements of an array")?;
            let bytes = cursor.take_vec(count * width as u64, "an array")?;
            Ok(Array::Numbers(Numbers::new(element, bytes)))
        }
        _ => {
            check_count(cursor, path, count, 8, "strings of an array")?;
            let mut strings = Strings::default();
            for _ in 0..count {
                strings.push(cursor.string("a string of an array")?);
            }
            Ok(Array::Strings(strings))
        }
    }
}

fn alignment(path: &Path, keys: &Keys) -> Result<u64> {
    match keys.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(bytes)) if bytes.is_power_of_two() => Ok((*bytes).into()),
        Some(_) => Err(bad_alignment(path)),
    }
}

/// A tensor info as it is in the file.
struct Info {
    tensor_type: TensorType,
    shape: Shape,
    /// From the start of the data.
    offset: u64,
    len: u64,
}

fn info(cursor: &mut Cursor, path: &Path) -> Result<(Name, Info)> {
    let name = cursor.string("the name of a tensor")?;
    if name.len() > MAX_NAME_BYTES {
        let len = name.len();
        let problem =
            format!("the name of a tensor has {len} bytes; at most {MAX_NAME_BYTES} are allowed");
        return Err(bad(path, problem));
    }
    let name: Name = text(path, name, "the name of a tensor")?.into();
    let refuse = |problem: String| Error::of_tensor(Code::BadHeader, path, &name, problem);
    let dimensions = cursor.u32("the number of dimensions")? as usize;
    if dimensions > MAX_DIMENSIONS {
        let problem =
            format!("it has {dimensions} dimensions; at most {MAX_DIMENSIONS} are allowed");
        return Err(refuse(problem));
    }
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        shape.push(cursor.u64("a dimension")?);
    }
    shape.reverse();
    let id = cursor.u32("the type of a tensor")?;
    let offset = cursor.u64("the offset of a tensor")?;
    let Some(tensor_type) = TensorType::from_id(id) else {
        let error = refuse(format!("its type has the number {id}, which is not known"));
        return Err(error.with_hint("is this file newer than this version of ckptfs?"));
    };
    let Some(len) = tensor_type.byte_len(&shape) else {
        return Err(refuse(format!(
            "it is {tensor_type} of shape {}: rows must be multiples of {} elements, and it must have less than 2^64 bytes",
            shape_text(&shape),
            tensor_type.block_elements()
        )));
    };
    let shape = shape.into();
    Ok((
        name,
        Info {
            tensor_type,
            shape,
            offset,
            len,
        },
    ))
}

/// `infos` with their places in `file`, once each begins where the one before it ends.
fn placed(
    file: &dyn Blob,
    infos: IndexMap<Name, Info>,
    alignment: u64,
    data_start: u64,
) -> Result<IndexMap<Name, TensorInfo>> {
    let path = file.location();
    let mut tensors = IndexMap::with_capacity(infos.len());
    let mut expected = 0;
    for (name, info) in infos {
        let refuse = |code, problem| Error::of_tensor(code, path, &name, problem);
        let found = info.offset;
        if found != expected {
            let what = match found < expected {
                true => "it overlaps the one before it",
                false => "there is a hole before it",
            };
            return Err(refuse(
                Code::BadHeader,
                format!("its data begins at {found} and should at {expected}: {what}"),
            ));
        }
        let offset = data_start.checked_add(found);
        let end = offset.and_then(|offset| offset.checked_add(info.len));
        let (Some(offset), Some(end)) = (offset, end) else {
            let problem = "its data ends beyond 2^64 bytes";
            return Err(refuse(Code::BadHeader, problem.to_owned()));
        };
        if end > file.len() {
            let len = file.len();
            let problem = format!("its data ends at byte {end}, but the file has {len} bytes");
            let error = refuse(Code::Truncated, problem);
            return Err(error.with_hint("is the download complete?"));
        }
        // The end is in the file, so what is added is less than the alignment: 2^31 at most.
        expected = padded(found + info.len, alignment).unwrap_or(u64::MAX);
        tensors.insert(
            name,
            TensorInfo {
                tensor_type: info.tensor_type,
                shape: info.shape,
                offset,
                len: info.len,
            },
        );
    }
    Ok(tensors)
}

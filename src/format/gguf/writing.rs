//! Writing: the header of tensors in the order given, and the tensors, each padded.

use super::header::Keys;
use super::reading::padded;
use super::tensor_type::TensorType;
use super::value::{Array, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS, MAX_NAME_BYTES};
use crate::error::{Code, Error, Result};
use crate::format::packing::Part;
use crate::tensor::shape_text;

/// The version that is written.
const VERSION: u32 = 3;

/// A tensor that is to be written.
#[derive(Debug, Clone)]
pub struct NewTensor<'a> {
    pub name: &'a str,
    pub tensor_type: TensorType,
    /// The slowest dimension first.
    pub shape: &'a [u64],
}

/// The file called `file` that has `keys` and `tensors`, both in the order given. Parts are the header,
/// the tensors, and padding; the bytes of the tensors take what type and shape say.
///
/// # Errors
/// If a tensor cannot be in such a file: too long a name, too many dimensions, rows that are no whole
/// blocks; or the alignment that `keys` have is none.
pub fn pack(file: &str, keys: &Keys, tensors: &[NewTensor]) -> Result<Vec<Part>> {
    let refuse = |name: &str, problem: String| {
        let problem = format!("{name} in {file} of the view: {problem}");
        Error::new(Code::UnsupportedTensor, problem)
    };
    let alignment = match keys.get(ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some(Value::U32(bytes)) if bytes.is_power_of_two() => u64::from(*bytes),
        Some(_) => {
            let problem = "it must be a power of two of type u32".to_owned();
            return Err(refuse(ALIGNMENT_KEY, problem));
        }
    };
    let mut header = Vec::new();
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    header.extend_from_slice(&(keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        push_string(&mut header, key.as_bytes());
        push_value(&mut header, value);
    }
    let mut lengths = Vec::with_capacity(tensors.len());
    let mut offset = 0;
    for tensor in tensors {
        let NewTensor {
            name,
            tensor_type,
            shape,
        } = tensor;
        if name.len() > MAX_NAME_BYTES {
            let problem = format!("its name has more than {MAX_NAME_BYTES} bytes");
            return Err(refuse(name, problem));
        }
        if shape.len() > MAX_DIMENSIONS {
            let problem = format!("it has more than {MAX_DIMENSIONS} dimensions");
            return Err(refuse(name, problem));
        }
        let len = tensor_type.byte_len(shape);
        let end = len.and_then(|len| padded(len.checked_add(offset)?, alignment));
        let (Some(len), Some(end)) = (len, end) else {
            let problem = format!(
                "its shape is {}, which cannot be {tensor_type}",
                shape_text(shape)
            );
            return Err(refuse(name, problem));
        };
        push_string(&mut header, name.as_bytes());
        header.extend_from_slice(&(shape.len() as u32).to_le_bytes());
        for dimension in shape.iter().rev() {
            header.extend_from_slice(&dimension.to_le_bytes());
        }
        header.extend_from_slice(&tensor_type.id().to_le_bytes());
        header.extend_from_slice(&u64::to_le_bytes(offset));
        lengths.push((len, end - offset - len));
        offset = end;
    }
    let data_start = padded(header.len() as u64, alignment).expect("a header fits in memory");
    header.resize(data_start as usize, 0);
    let mut parts = vec![Part::Made(header)];
    for (position, (_, padding)) in lengths.into_iter().enumerate() {
        parts.push(Part::Tensor(position));
        if padding > 0 {
            parts.push(Part::Made(vec![0; padding as usize]));
        }
    }
    Ok(parts)
}

fn push_string(header: &mut Vec<u8>, text: &[u8]) {
    header.extend_from_slice(&(text.len() as u64).to_le_bytes());
    header.extend_from_slice(text);
}

fn push_value(header: &mut Vec<u8>, value: &Value) {
    header.extend_from_slice(&(value.value_type() as u32).to_le_bytes());
    match value {
        Value::U8(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::I8(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::U16(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::I16(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::U32(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::I32(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::F32(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::U64(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::I64(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::F64(value) => header.extend_from_slice(&value.to_le_bytes()),
        Value::Bool(value) => header.push((*value).into()),
        Value::String(text) => push_string(header, text.as_bytes()),
        Value::Array(array) => {
            header.extend_from_slice(&(array.element() as u32).to_le_bytes());
            header.extend_from_slice(&(array.len() as u64).to_le_bytes());
            match array {
                Array::Numbers(numbers) => header.extend_from_slice(numbers.bytes()),
                Array::Strings(strings) => {
                    for text in strings.iter() {
                        push_string(header, text);
                    }
                }
            }
        }
    }
}

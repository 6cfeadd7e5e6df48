//! Safetensors files, written by hand so that tests decide every byte.

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::checkpoint::TensorData;
use super::values::dtype_name;

/// A header with its length in front, as it is: not padded, and nothing is checked.
pub(crate) fn with_length(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// A file of `tensors` in this order, without padding: tensor data may start at any offset.
pub(crate) fn serialize<'a>(tensors: impl IntoIterator<Item = &'a TensorData>) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend_from_slice(&tensor.bytes);
        let entry = entry(tensor.dtype, &tensor.shape, start, data.len());
        header.insert(tensor.name.clone(), entry);
    }
    let mut bytes = with_length(&Value::Object(header).to_string());
    bytes.extend(data);
    bytes
}

/// What a header says of one tensor.
pub(crate) fn entry(dtype: Dtype, shape: &[usize], start: usize, end: usize) -> Value {
    json!({"dtype": dtype_name(dtype), "shape": shape, "data_offsets": [start, end]})
}

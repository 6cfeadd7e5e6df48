//! GGUF files built byte by byte, as <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
//! describes them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ckptfs::source::{Blob, Location};

/// A file in the making. Its fields may be wrong: every number is written as it is.
#[derive(Debug, Clone)]
pub(crate) struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    /// If they are not as many as there are.
    pub tensor_count: Option<u64>,
    pub key_count: Option<u64>,
    /// Key, and type and value as bytes.
    pub keys: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<Info>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub name: Vec<u8>,
    /// The fastest first.
    pub dimensions: Vec<u64>,
    pub id: u32,
    pub offset: u64,
}

impl Default for Gguf {
    fn default() -> Self {
        Gguf {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }
}

impl Gguf {
    pub(crate) fn key(mut self, key: &str, value: Vec<u8>) -> Self {
        self.keys.push((key.to_owned(), value));
        self
    }

    /// Adds a tensor of type `id` with these `bytes`, padded.
    pub(crate) fn tensor(mut self, name: &str, id: u32, dimensions: &[u64], bytes: &[u8]) -> Self {
        self.tensors.push(Info {
            name: name.as_bytes().to_vec(),
            dimensions: dimensions.to_vec(),
            id,
            offset: self.data.len() as u64,
        });
        self.data.extend(bytes);
        let padded = self.data.len().next_multiple_of(self.alignment);
        self.data.resize(padded, 0);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        bytes.extend(tensors.to_le_bytes());
        let keys = self.key_count.unwrap_or(self.keys.len() as u64);
        bytes.extend(keys.to_le_bytes());
        for (key, value) in &self.keys {
            bytes.extend(text(key.as_bytes()));
            bytes.extend(value);
        }
        for info in &self.tensors {
            bytes.extend(text(&info.name));
            bytes.extend((info.dimensions.len() as u32).to_le_bytes());
            for dimension in &info.dimensions {
                bytes.extend(dimension.to_le_bytes());
            }
            bytes.extend(info.id.to_le_bytes());
            bytes.extend(info.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// A string without its type.
pub(crate) fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A value of type `id` with these bytes.
pub(crate) fn value(id: u32, bytes: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes(), bytes].concat()
}

pub(crate) fn string(value: &str) -> Vec<u8> {
    self::value(8, &text(value.as_bytes()))
}

pub(crate) fn u32_value(number: u32) -> Vec<u8> {
    value(4, &number.to_le_bytes())
}

pub(crate) fn f32_value(number: f32) -> Vec<u8> {
    value(6, &number.to_le_bytes())
}

/// An array of `count` elements of type `id`.
pub(crate) fn array(id: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    let content = [&id.to_le_bytes()[..], &count.to_le_bytes(), elements].concat();
    value(9, &content)
}

pub(crate) fn strings<T: AsRef<[u8]>>(texts: &[T]) -> Vec<u8> {
    let elements: Vec<u8> = texts.iter().flat_map(|t| text(t.as_ref())).collect();
    array(8, texts.len() as u64, &elements)
}

/// Writes `bytes` as the file `name` of `directory` and opens it.
pub(crate) fn file(directory: &Path, name: &str, bytes: &[u8]) -> Arc<dyn Blob> {
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    let blob = Location::from(&path).weights().unwrap();
    blob.expect("it was just written")
}

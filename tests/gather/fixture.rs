//! Tensors in memory, read through a view, and their elements by index.

use std::sync::Arc;

use ckptfs::catalog::{Extents, Tensor};
use ckptfs::read::Reader;
use ckptfs::source::Attributes;
use ckptfs::tensor::Dtype;
use ckptfs::view::{TopFile, View};

use crate::common::values::{Random, bits};

/// A tensor as its elements, each its bytes, in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elements {
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Vec<Vec<u8>>,
}

impl Elements {
    /// What `element` says for every index of `shape`.
    pub(crate) fn new(shape: &[usize], element: impl Fn(&[usize]) -> Vec<u8>) -> Self {
        let count: usize = shape.iter().product();
        let elements = (0..count).map(|mut at| {
            let mut index = vec![0; shape.len()];
            for (i, len) in shape.iter().enumerate().rev() {
                index[i] = at % len;
                at /= len;
            }
            element(&index)
        });
        Elements {
            shape: shape.to_vec(),
            elements: elements.collect(),
        }
    }

    pub(crate) fn at(&self, index: &[usize]) -> Vec<u8> {
        let place = index.iter().zip(&self.shape);
        self.elements[place.fold(0, |at, (i, len)| at * len + i)].clone()
    }

    /// `index` with another entry for `dimension`.
    pub(crate) fn at_with(&self, index: &[usize], dimension: usize, entry: usize) -> Vec<u8> {
        let mut index = index.to_vec();
        index[dimension] = entry;
        self.at(&index)
    }
}

/// A tensor of whole bytes with random content, and its elements.
pub(crate) fn random(dtype: Dtype, shape: &[usize], seed: u64) -> (Tensor, Elements) {
    let mut random = Random::new(seed);
    let width = bits(dtype) / 8;
    let mut element = || random.next().to_le_bytes()[..width].to_vec();
    let count = shape.iter().product();
    let elements = Elements {
        shape: shape.to_vec(),
        elements: (0..count).map(|_| element()).collect(),
    };
    (made(dtype, shape, elements.elements.concat()), elements)
}

/// A tensor of these bytes.
pub(crate) fn made(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    let shape: Vec<u64> = shape.iter().map(|len| *len as u64).collect();
    Tensor {
        dtype,
        shape: shape.into(),
        extents: Extents::made(bytes),
        home: None,
    }
}

/// The bytes of `tensor`, asked for in pieces of `piece` bytes from the last one to the first.
pub(crate) fn bytes(tensor: &Tensor, piece: usize) -> Vec<u8> {
    let attributes = Attributes::read("/".as_ref()).unwrap();
    let file = TopFile {
        name: "tensor".into(),
        attributes,
        content: tensor.extents.clone(),
    };
    let view = Arc::new(View::new(attributes, vec![file], &[]));
    let reader = Reader::new(view.clone(), 64 << 20);
    let (id, ..) = view.files().next().unwrap();
    let mut bytes = vec![0xAA; tensor.len() as usize];
    for (i, piece_bytes) in bytes.chunks_mut(piece).enumerate().rev() {
        let count = reader.read_at(id, (i * piece) as u64, piece_bytes).unwrap();
        assert_eq!(count, piece_bytes.len());
    }
    bytes
}

/// Asserts that `tensor` is `expected`.
pub(crate) fn assert_is(tensor: &Tensor, expected: &Elements) {
    let shape: Vec<usize> = tensor.shape.iter().map(|len| *len as usize).collect();
    assert_eq!(shape, expected.shape);
    let width = bits(tensor.dtype) / 8;
    let found = bytes(tensor, (tensor.len() as usize / 3).max(7));
    let found: Vec<Vec<u8>> = found.chunks(width).map(<[u8]>::to_vec).collect();
    assert!(found == expected.elements, "{:?} differs", expected.shape);
}

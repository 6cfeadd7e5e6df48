//! Tensors as their containers store them.

use std::sync::Arc;

use crate::catalog::gather::{Gather, Part};
use crate::catalog::tensor::{Extent, Tensor};
use crate::format::{Shard, StoredTensor};
use crate::runs::Runs;
use crate::source::Blob;
use crate::tensor::{Axis, Name, merged_axes};

impl Tensor {
    /// The tensor called `name` of `shard`, with its name as the shard has it: a range of bytes, or where its
    /// elements are not stored in their order, what a kernel puts in order.
    ///
    /// # Panics
    /// If the shard does not have it.
    pub fn stored(name: &str, shard: &Shard, home: Option<usize>) -> (Name, Self) {
        let found = shard.tensors.get_key_value(name);
        let (name, tensor) = found.expect("a shard is asked for its own tensors");
        (
            name.clone(),
            Tensor::in_blob(name, tensor, &shard.blob, home),
        )
    }

    /// The same of the blob that has `tensor`.
    pub(crate) fn in_blob(
        name: &str,
        tensor: &StoredTensor,
        blob: &Arc<dyn Blob>,
        home: Option<usize>,
    ) -> Self {
        let place = Extent::Stored {
            blob: blob.clone(),
            offset: tensor.offset,
        };
        let stored = Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            extents: Runs::one(tensor.span(), place),
            home,
        };
        match &tensor.strides {
            None => stored,
            Some(strides) => in_order(name, tensor, strides, stored),
        }
    }
}

/// `tensor` with its elements in row-major order; `stored` has those from its first to its last, as the file has
/// them.
fn in_order(name: &str, tensor: &StoredTensor, strides: &[u64], mut stored: Tensor) -> Tensor {
    let (outer, rows, columns) = match &merged_axes(&tensor.shape, strides)[..] {
        [] => unreachable!("a single element is in order"),
        [rows] => (Vec::new(), *rows, Axis { len: 1, stride: 1 }),
        [outer @ .., rows, columns] => (outer.to_vec(), *rows, *columns),
    };
    let gather = Gather {
        outer,
        rows: rows.len,
        columns: columns.len,
        parts: vec![Part {
            start: 0,
            row_stride: rows.stride,
            column_stride: columns.stride,
            first: 0,
            step: 1,
            count: columns.len,
        }],
    };
    // A line of elements.
    stored.shape = [8 * stored.len() / tensor.dtype.bitsize() as u64].into();
    let gathered = gather.tensor(name, vec![stored], tensor.shape.to_vec());
    gathered.expect("containers give strides only to elements of whole bytes")
}

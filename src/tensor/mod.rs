//! What a tensor is, apart from where its bytes come from.

mod axes;

use std::sync::Arc;

pub use axes::{Axis, elements_spanned, is_contiguous, merged_axes};
pub use safetensors::tensor::Dtype;

/// A tensor's name, shared by all that speak of it.
pub type Name = Arc<str>;

/// A tensor's dimensions, likewise shared.
pub type Shape = Arc<[u64]>;

/// Bytes that a tensor of `dtype` and `shape` takes, or `None` if that is not a whole number of
/// bytes or does not fit in 64 bits.
pub fn byte_len(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
    let bits = elements.checked_mul(dtype.bitsize() as u64)?;
    (bits % 8 == 0).then_some(bits / 8)
}

/// A shape as people write it: `[4096, 1024]`.
pub fn shape_text(shape: &[u64]) -> String {
    format!("{shape:?}")
}

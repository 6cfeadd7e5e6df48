//! What a tensor is, apart from where its bytes come from.

pub mod float8;

use std::sync::Arc;

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

/// The suffix of a block scale's name: `X_scale_inv` holds the scales of `X`.
pub const SCALE_SUFFIX: &str = "_scale_inv";

/// The name of the scales of the tensor called `name`.
pub fn scale_name(name: &str) -> String {
    [name, SCALE_SUFFIX].concat()
}

/// The name of the tensor whose scales are called `name`, if it is the name of scales.
pub fn scaled_name(name: &str) -> Option<&str> {
    name.strip_suffix(SCALE_SUFFIX)
}

/// Whether `dtype` is one of the 8-bit floating point types that hold weights (not scales).
pub fn is_float8(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ
    )
}

/// A shape as people write it: `[4096, 1024]`.
pub fn shape_text(shape: &[u64]) -> String {
    format!("{shape:?}")
}

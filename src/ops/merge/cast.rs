//! Dtypes of a merge: what inputs are cast to, and a tensor that passes through.

use crate::catalog::Tensor;
use crate::error::Result;
use crate::ops::merge::method::Group;
use crate::ops::merge::scale::Scale;
use crate::tensor::Dtype;

/// Whether a method can compute with values of `dtype`.
pub(super) fn is_floating(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64)
}

/// The smallest dtype that holds every value of both.
pub(super) fn promote(one: Dtype, other: Dtype) -> Dtype {
    match (one, other) {
        _ if one == other => one,
        (Dtype::F64, _) | (_, Dtype::F64) => Dtype::F64,
        _ => Dtype::F32,
    }
}

/// `tensor` as the output of `group`: stored where neither cast changes its dtype.
pub(super) fn through(group: &Group, tensor: &Tensor) -> Result<Tensor> {
    if tensor.dtype == group.working && tensor.dtype == group.out {
        return Ok(tensor.clone());
    }
    group.computed(Scale { factor: None }, vec![tensor.clone()])
}

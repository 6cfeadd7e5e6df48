//! Tensors that are no weights: whole numbers, such as position ids. They cannot be merged, only be
//! the same in all models.

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::ops::merge::cast;
use crate::quant::is_coded;
use crate::shown::Show;

/// At most this many bytes of such a tensor are compared.
const MOST_BYTES: u64 = 16 << 20;

/// The tensor that all inputs agree on, or `None` if all are floating point.
///
/// # Errors
/// If they do not agree.
pub(super) fn agreed(name: &str, inputs: &[(usize, Tensor)]) -> Result<Option<Tensor>> {
    let is_weight = |tensor: &Tensor| cast::is_floating(tensor.dtype) || is_coded(tensor.dtype);
    let (_, first) = &inputs[0];
    if inputs.iter().all(|(_, tensor)| is_weight(tensor)) {
        return Ok(None);
    }
    let mut content: Option<Vec<u8>> = None;
    for (_, other) in &inputs[1..] {
        let same = (other.dtype, &other.shape) == (first.dtype, &first.shape) && {
            let content = match &mut content {
                Some(content) => content,
                empty => empty.insert(bytes(name, first)?),
            };
            *content == bytes(name, other)?
        };
        if !same {
            return Err(Error::of_tensor(
                Code::MergeUnlike,
                other.origin(),
                name,
                format!(
                    "it is not floating point and differs from {}: such a tensor must be the same in all models",
                    first.origin().shown()
                ),
            ));
        }
    }
    Ok(Some(first.clone()))
}

fn bytes(name: &str, tensor: &Tensor) -> Result<Vec<u8>> {
    let problem = match tensor.as_stored() {
        _ if tensor.len() > MOST_BYTES => {
            format!(
                "it has {} bytes; at most {MOST_BYTES} of a tensor that is not floating point are compared",
                tensor.len()
            )
        }
        Some((blob, offset)) => {
            let mut bytes = vec![0; tensor.len() as usize];
            blob.read_at(&mut bytes, offset)?;
            return Ok(bytes);
        }
        None => "it is not floating point and not stored, and cannot be compared".to_owned(),
    };
    Err(Error::of_tensor(
        Code::MergeUnlike,
        tensor.origin(),
        name,
        problem,
    ))
}

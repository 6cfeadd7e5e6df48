//! Tensors that several shards hold. Small ones may be copies of one another, such as a scale that the
//! weights of several shards share: one of them is the checkpoint's, the others are left out.

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{LeftOut, StoredTensor};
use crate::source::Blob;

/// Longer tensors are not compared, since a plan reads few bytes of tensors.
const MAX_BYTES: u64 = 1 << 16;

/// A tensor in one of several shards.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub file: &'a str,
    pub blob: &'a dyn Blob,
    pub tensor: &'a StoredTensor,
}

/// Leaves out the tensor `name` of the shard `other`, which is a copy of that of the shard `used`.
///
/// # Errors
/// If it is not, or is too long to compare: nothing says which of the two is meant.
pub(super) fn leave_out(
    name: &str,
    used: Held,
    other: Held,
    left_out: &mut Vec<LeftOut>,
) -> Result<()> {
    let [tensor, copy] = [used, other].map(|held| held.tensor);
    let problem = if tensor.dtype != copy.dtype || tensor.shape != copy.shape {
        "with another dtype or shape".to_owned()
    } else if tensor.strides != copy.strides {
        "with its elements in another order".to_owned()
    } else if tensor.span() > MAX_BYTES {
        format!("and of tensors of more than {MAX_BYTES} bytes nothing says that these are copies")
    } else if bytes(used)? != bytes(other)? {
        "with other bytes".to_owned()
    } else {
        let copy = format!(
            "tensor {name} in {}: a copy of that in {}",
            other.file, used.file
        );
        left_out.push(copy.into());
        return Ok(());
    };
    let problem = format!(
        "it is also in {}, {problem}; a tensor must be in one shard only",
        used.file
    );
    Err(Error::of_tensor(
        Code::IndexMismatch,
        other.blob.location(),
        name,
        problem,
    ))
}

fn bytes(held: Held) -> Result<Vec<u8>> {
    // At most MAX_BYTES.
    let mut bytes = vec![0; held.tensor.span() as usize];
    held.blob.read_at(&mut bytes, held.tensor.offset)?;
    Ok(bytes)
}

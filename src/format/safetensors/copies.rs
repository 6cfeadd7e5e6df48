//! Tensors that several shards hold. Small ones may be copies of one another, such as a scale that the
//! weights of several shards share: one of them is the checkpoint's, the others are left out.

use crate::error::{Code, Error, Result};
use crate::format::checkpoint::{LeftOut, Shard};

/// Longer tensors are not compared, since a plan reads few bytes of tensors.
const MAX_BYTES: u64 = 1 << 16;

/// Leaves out the tensor `name` of the shard `other`, which is a copy of that of the shard `used`.
///
/// # Errors
/// If it is not, or is too long to compare: nothing says which of the two is meant.
pub(super) fn leave_out(
    name: &str,
    used: &Shard,
    other: &Shard,
    left_out: &mut Vec<LeftOut>,
) -> Result<()> {
    let [tensor, copy] = [used, other].map(|shard| &shard.tensors[name]);
    let problem = if tensor.dtype != copy.dtype || tensor.shape != copy.shape {
        "with another dtype or shape".to_owned()
    } else if tensor.len > MAX_BYTES {
        format!("and of tensors of more than {MAX_BYTES} bytes nothing says that these are copies")
    } else if bytes(name, used)? != bytes(name, other)? {
        "with other bytes".to_owned()
    } else {
        let copy = format!(
            "tensor {name} in {}: a copy of that in {}",
            other.name, used.name
        );
        left_out.push(copy.into());
        return Ok(());
    };
    let problem = format!(
        "it is also in {}, {problem}; a tensor must be in one shard only",
        used.name
    );
    Err(Error::of_tensor(
        Code::IndexMismatch,
        other.blob.location(),
        name,
        problem,
    ))
}

fn bytes(name: &str, shard: &Shard) -> Result<Vec<u8>> {
    let tensor = &shard.tensors[name];
    // At most MAX_BYTES.
    let mut bytes = vec![0; tensor.len as usize];
    shard.blob.read_at(&mut bytes, tensor.offset)?;
    Ok(bytes)
}

//! Where the elements of a tensor are in its file.

use crate::error::Code;
use crate::format::checkpoint::StoredTensor;
use crate::format::torch::tensors::Described;
use crate::format::torch::zip::Stored;
use crate::tensor::{byte_len, elements_spanned, is_contiguous, merged_axes, shape_text};

/// The maximum size in bytes of a tensor with repeated elements. Its size in the file does not bound it.
const MAX_EXPANDED: u64 = 1 << 30;

/// The longest row that is gathered element by element.
const MAX_COLUMNS: u64 = 1 << 24;

/// Where the elements of a tensor are in its file; what is wrong if they are not in `storage`.
pub(super) fn stored(
    tensor: &Described,
    storage: Stored,
) -> std::result::Result<StoredTensor, (Code, String)> {
    let Described {
        dtype,
        offset,
        shape,
        strides,
        storage: described,
    } = tensor;
    let shown = shape_text(shape);
    let damaged = |problem: String| (Code::BadTorchFile, problem);
    let width = dtype.bitsize() as u64 / 8;
    let too_large = || damaged(format!("its shape is {shown}: that is 2^61 bytes or more"));
    let len = byte_len(*dtype, shape)
        .filter(|&len| len < 1 << 61)
        .ok_or_else(too_large)?;
    let spanned = elements_spanned(shape, strides);
    // Of a part of the storage, if one is meant.
    let unit = described.width().expect("its elements are known");
    let (first, part) = described.view.unwrap_or((0, described.len));
    let places = (|| {
        let first = first.checked_mul(unit)?;
        let end = first.checked_add(part.checked_mul(unit)?)?;
        let start = first.checked_add(offset.checked_mul(width)?)?;
        let last = start.checked_add(spanned?.checked_mul(width)?)?;
        (end <= storage.len && last <= end).then_some(start)
    })();
    let Some(start) = places else {
        return Err(damaged(format!(
            "its shape is {shown} with strides {strides:?} from element {offset} on, which is not inside of its storage of {} bytes",
            storage.len
        )));
    };
    let strides = if is_contiguous(shape, strides) {
        None
    } else {
        check_gather(dtype.bitsize() as u64 / 8, len, shape, strides)
            .map_err(|problem| (Code::OverLimit, problem))?;
        Some(strides[..].into())
    };
    Ok(StoredTensor {
        dtype: *dtype,
        shape: shape[..].into(),
        offset: storage.offset + start,
        len,
        strides,
    })
}

/// Checks that elements can be put in order band by band.
fn check_gather(
    width: u64,
    len: u64,
    shape: &[u64],
    strides: &[u64],
) -> std::result::Result<(), String> {
    let shown = shape_text(shape);
    let spanned = elements_spanned(shape, strides).unwrap_or(u64::MAX);
    if len / width > spanned && len > MAX_EXPANDED {
        return Err(format!(
            "its shape is {shown} with strides {strides:?}: it repeats elements, and such a tensor has at most {MAX_EXPANDED} bytes"
        ));
    }
    if let [.., _, columns] = merged_axes(shape, strides)[..]
        && columns.stride != 1
        && columns.len > MAX_COLUMNS
    {
        return Err(format!(
            "its shape is {shown} with strides {strides:?}: rows whose elements are not next to each other have at most {MAX_COLUMNS}"
        ));
    }
    Ok(())
}

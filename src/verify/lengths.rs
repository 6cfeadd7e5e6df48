//! What the header of a shard says about why it is not as long as in the view.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::{Code, Result};
use crate::findings::Findings;
use crate::format::StoredTensor;
use crate::format::safetensors::read_header;
use crate::layout::PlannedShard;
use crate::source::Blob;
use crate::tensor::Name;

/// How the tensors of the file `found`, of `len` bytes, differ from those of `shard`; one line for
/// each kind of difference.
pub(super) fn tensors_apart(
    shard: &PlannedShard,
    found: Result<Arc<dyn Blob>>,
    len: u64,
) -> Vec<String> {
    let mut findings = Findings::default();
    let header = found.and_then(|file| read_header(&*file));
    match header {
        Ok(header) => compare(shard, &header, &mut findings),
        Err(_) => {
            for tensor in &shard.tensors {
                if tensor.offset + tensor.len > len {
                    findings.add_item(
                        Code::ViewDiffers,
                        "it ends before the end of",
                        &*tensor.name,
                    );
                }
            }
        }
    }
    let warnings = findings.into_warnings().into_iter();
    warnings.map(|warning| warning.to_string()).collect()
}

fn compare(shard: &PlannedShard, header: &IndexMap<Name, StoredTensor>, findings: &mut Findings) {
    for tensor in &shard.tensors {
        match header.get(&tensor.name) {
            None => findings.add_item(Code::ViewDiffers, "only in the view", &*tensor.name),
            Some(found) if (found.dtype, &found.shape) != (tensor.dtype, &tensor.shape) => {
                let item = format!(
                    "{} ({} {:?}, in the view {} {:?})",
                    tensor.name, found.dtype, found.shape, tensor.dtype, tensor.shape
                );
                findings.add_item(Code::ViewDiffers, "of another dtype or shape", item);
            }
            Some(_) => {}
        }
    }
    let planned = shard.tensors.iter().map(|tensor| &*tensor.name);
    let planned: std::collections::HashSet<&str> = planned.collect();
    for name in header.keys().filter(|name| !planned.contains(&***name)) {
        findings.add_item(Code::ViewDiffers, "only in the directory", &**name);
    }
}

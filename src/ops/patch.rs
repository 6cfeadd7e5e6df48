//! Patch: the base, and the tensors that only an extra has.
//!
//! The base wins on every overlap; extras apply in order, the first that has a tensor gives it.
//! Only tensors are taken from an extra, never its config, tokenizer or other files.

use crate::catalog::{Catalog, Role, SourceReport, Tensor};
use crate::error::Result;
use crate::format::Checkpoint;
use crate::ops::{Operator, patch_checks};

/// Adds what the catalog lacks from other checkpoints.
#[derive(Debug)]
pub struct Patch {
    extras: Vec<Checkpoint>,
}

impl Patch {
    /// A patch from `extras`, in order of precedence.
    pub fn new(extras: Vec<Checkpoint>) -> Self {
        Patch { extras }
    }
}

impl Operator for Patch {
    fn apply(&self, catalog: &mut Catalog) -> Result<()> {
        for extra in &self.extras {
            patch_checks::warn_before(catalog, extra)?;
            let (mut added, mut added_bytes) = (0, 0u64);
            for (name, &shard) in &extra.tensors {
                if catalog.tensors.contains_key(name) {
                    continue;
                }
                let (name, tensor) = Tensor::stored(name, &extra.shards[shard], None);
                added += 1;
                added_bytes = added_bytes.saturating_add(tensor.len());
                catalog.tensors.insert(name, tensor);
            }
            catalog.sources.extend(&extra.shards);
            catalog.report.sources.push(SourceReport {
                role: Role::Extra,
                path: extra.directory.clone(),
                tensors: extra.tensors.len(),
                bytes: extra.tensor_bytes(),
                added,
                added_bytes,
                overlapping: extra.tensors.len() - added,
                left_out: extra.left_out.clone(),
            });
        }
        Ok(())
    }
}

//! Which tensors are where in the sources.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::report::Role;
use crate::format::Shard;
use crate::source::Blob;

/// The shards that tensors of a view come from, found by their blob.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// By the address of the blob, which the shard keeps alive.
    shards: HashMap<usize, (Arc<Shard>, Option<Role>)>,
}

impl Sources {
    /// Adds `shard`, of a source that is no checkpoint.
    pub fn add(&mut self, shard: &Arc<Shard>) {
        self.shards
            .insert(address(&shard.blob), (shard.clone(), None));
    }

    /// Adds `shards` of a checkpoint that plays the part `role`.
    pub fn extend(&mut self, shards: &[Arc<Shard>], role: Role) {
        let shards = shards.iter();
        self.shards
            .extend(shards.map(|shard| (address(&shard.blob), (shard.clone(), Some(role)))));
    }

    /// Adds what `others` has.
    pub fn merge(&mut self, others: &Sources) {
        let others = others.shards.iter();
        self.shards
            .extend(others.map(|(address, shard)| (*address, shard.clone())));
    }

    /// The shard whose blob is `blob`, if it was added.
    pub fn shard(&self, blob: &Arc<dyn Blob>) -> Option<&Arc<Shard>> {
        let (shard, _) = self.shards.get(&address(blob))?;
        Some(shard)
    }

    /// The part that the checkpoint of `shard` plays; `None` if it is of something else.
    pub fn role(&self, shard: &Shard) -> Option<Role> {
        let (_, role) = self.shards.get(&address(&shard.blob))?;
        *role
    }
}

fn address(blob: &Arc<dyn Blob>) -> usize {
    Arc::as_ptr(blob).addr()
}

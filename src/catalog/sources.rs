//! Which tensors are where in the sources.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::Shard;
use crate::source::Blob;

/// The shards that tensors of a view come from, found by their blob.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// By the address of the blob, which the shard keeps alive.
    shards: HashMap<usize, Arc<Shard>>,
}

impl Sources {
    /// Adds `shard`.
    pub fn add(&mut self, shard: &Arc<Shard>) {
        self.shards.insert(address(&shard.blob), shard.clone());
    }

    /// Adds what `others` has.
    pub fn merge(&mut self, others: &Sources) {
        self.extend(others.shards.values());
    }

    /// The shard whose blob is `blob`, if it was added.
    pub fn shard(&self, blob: &Arc<dyn Blob>) -> Option<&Arc<Shard>> {
        self.shards.get(&address(blob))
    }
}

impl<'a> Extend<&'a Arc<Shard>> for Sources {
    fn extend<T: IntoIterator<Item = &'a Arc<Shard>>>(&mut self, shards: T) {
        shards.into_iter().for_each(|shard| self.add(shard));
    }
}

fn address(blob: &Arc<dyn Blob>) -> usize {
    Arc::as_ptr(blob).addr()
}

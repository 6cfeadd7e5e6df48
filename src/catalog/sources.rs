//! Which tensors are where in the source files.

use std::collections::HashMap;
use std::sync::Arc;

use crate::source::{Shard, SourceFile};

/// The shards that tensors of a view come from, found by their file.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// By the address of the file, which the shard keeps alive.
    shards: HashMap<usize, Arc<Shard>>,
}

impl Sources {
    /// Adds `shard`.
    pub fn add(&mut self, shard: &Arc<Shard>) {
        self.shards.insert(address(&shard.file), shard.clone());
    }

    /// Adds what `others` has.
    pub fn merge(&mut self, others: &Sources) {
        self.extend(others.shards.values());
    }

    /// The shard whose file is `file`, if it was added.
    pub fn shard(&self, file: &Arc<SourceFile>) -> Option<&Arc<Shard>> {
        self.shards.get(&address(file))
    }
}

impl<'a> Extend<&'a Arc<Shard>> for Sources {
    fn extend<T: IntoIterator<Item = &'a Arc<Shard>>>(&mut self, shards: T) {
        shards.into_iter().for_each(|shard| self.add(shard));
    }
}

fn address(file: &Arc<SourceFile>) -> usize {
    Arc::as_ptr(file).addr()
}

//! Arranging a catalog as the files of a view.

mod plan;
mod shard_file;
mod shards;

pub use plan::{Plan, PlannedShard, PlannedTensor};
pub use shards::{Partition, shards};

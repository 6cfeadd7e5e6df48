//! Arranging a catalog as the files of a view.

mod costs;
mod partition;
mod plan;
mod shard_file;
mod shards;

pub use partition::Shards;
pub use plan::{Plan, PlannedShard, PlannedTensor, ShardCost, ShardCosts};
pub use shards::shards;

//! Arranging a catalog as the files of a view.

mod attributes;
mod costs;
mod gguf;
mod partition;
mod plan;
mod shard_file;
mod shards;

pub use gguf::gguf;
pub use partition::Shards;
pub use plan::{Encoded, Plan, PlannedShard, PlannedTensor, ShardCost, ShardCosts};
pub use shards::{in_order, shards};

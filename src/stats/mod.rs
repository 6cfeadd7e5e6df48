//! What became of a view while it was read: counters that any number of threads raise without a
//! lock, and the snapshot of them that is shown.
//!
//! Only what is known is counted. What the kernel reads by itself, from its page cache or by
//! passthrough, no process is told of: of passthrough there are openings, not bytes.

mod counters;
mod histogram;
mod snapshot;

pub use counters::{Origin, Reading, Served, Serving};
pub use histogram::{Bucket, Histogram, Latency};
pub use snapshot::{
    CacheStats, FactStats, FileStats, PassthroughStats, PersistState, PersistStats, PrefetchState,
    PrefetchStats, RequestStats, SCHEMA, ServedStats, Snapshot, TileStats, ViewStats,
};

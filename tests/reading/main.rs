//! How views are read: ranges, tiles that are kept, and tiles that are computed ahead.

#[path = "../common/mod.rs"]
mod common;

mod read_ahead;
mod runs;
mod single_flight;
mod slices;
mod tile_cache;

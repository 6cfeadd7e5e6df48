//! Bytes of any range of a view's files.

mod ahead;
mod buffers;
#[cfg(test)]
mod buffers_tests;
mod computing;
mod facts;
mod facts_cache;
mod fetched;
mod fill;
mod input;
mod pace;
mod reader;
mod single_flight;
mod stored;
mod sync;
mod tiles;

pub use ahead::{Ahead, ReadAhead};
pub use buffers::Buffer;
pub use facts_cache::FactsCache;
pub use fill::Destination;
pub use reader::Reader;
pub(crate) use stored::Stored;
pub use tiles::{Tile, TileCache, TileKey, TileOutput};

//! Sources beyond this machine: object stores, the Hub, and web servers.
//!
//! A `Store` lists objects and gives ranges of them; each scheme of URLs has one. All else is
//! the same for all: a `Source` reads an object by blocks, which are fetched once, kept in
//! memory and on disk, and fetched ahead of readers. Every reply is checked against what was listed.
//! A `Bucket` writes objects.

mod blob;
mod blocks;
mod bucket;
mod cache;
mod causes;
mod certificate;
mod client;
mod connector;
mod crypto;
mod directory;
mod fault;
mod hub;
mod memory;
mod network;
mod objects;
mod open;
mod options;
mod pins;
mod prefix;
mod recorder;
mod reply;
mod sending;
mod source;
mod store;
mod streams;
mod transfer;
mod web;

pub(crate) use bucket::{Bucket, Listed, Part, Upload, is_same_content, spelled};
pub use hub::HubOptions;
pub use network::Network;
pub use options::{BlockCacheOptions, NetworkOptions};
pub use pins::Pins;

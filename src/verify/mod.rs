//! Checking a directory: what it must be for its readers, or its bytes against a view or checksums.
//!
//! Nothing here goes by how views are made: the same checks hold for any checkpoint, on disk or
//! mounted. Only scales that a mount is known to compute as powers of two are not read for it.

mod compare;
mod described;
mod known_scales;
mod lengths;
mod manifest;
mod place;
mod quantization;
mod shard_file;
mod structure;

pub use compare::{CompareReport, Difference, Kind, against_view};
pub use known_scales::KnownScales;
pub use manifest::{ManifestReport, manifest};
pub use structure::{StructureReport, structure};

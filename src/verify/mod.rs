//! Checking a directory: what it must be for its readers, or its bytes against a view or checksums.
//!
//! Nothing here goes by how views are made: the same checks hold for any checkpoint, on disk or
//! mounted.

mod block_scales;
mod compare;
mod findings;
mod layers;
mod manifest;
mod quantization;
mod structure;

pub use compare::{CompareReport, Difference, Kind, against_view};
pub use manifest::{ManifestReport, manifest};
pub use structure::{StructureReport, structure};

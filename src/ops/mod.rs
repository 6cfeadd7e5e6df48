//! Operators: each rewrites a catalog from headers alone (the plan half) and brings the kernels
//! that compute what it adds (the kernel half).

mod cast;
mod cast_config;
mod experts;
mod experts_fuse;
mod experts_model;
mod experts_unfuse;
mod filter;
mod lora;
mod lora_adapter;
mod lora_columns;
mod lora_embeddings;
mod lora_experts;
mod lora_factors;
mod lora_kernels;
mod lora_layers;
mod lora_targets;
pub mod merge;
mod patch;
mod patch_checks;
mod pattern;
pub mod quantize;
mod rename;
mod rename_skips;

pub use cast::{Cast, cast, is_castable};
pub use experts::Experts;
pub use filter::Filter;
pub use lora::Lora;
pub use patch::Patch;
pub use quantize::{PartialBlocks, Quantize, Selection};
pub use rename::Rename;

use crate::catalog::Catalog;
use crate::error::Result;
pub use crate::kernels::lanes::Precision;

/// The plan half of an operator.
pub trait Operator: std::fmt::Debug {
    /// Rewrites `catalog`: names, dtypes, shapes, config edits, warnings.
    ///
    /// # Errors
    /// If the view asked for cannot exist; the catalog is then not to be used.
    fn apply(&self, catalog: &mut Catalog) -> Result<()>;
}

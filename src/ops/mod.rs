//! Operators: each rewrites a catalog from headers alone (the plan half) and brings the kernels
//! that compute what it adds (the kernel half).

mod cast;
mod cast_config;
mod declared;
mod dequantize;
mod experts;
mod experts_fuse;
mod experts_model;
mod experts_unfuse;
mod filter;
mod fp8;
mod fp8_checks;
mod fp8_config;
mod fp8_groups;
mod fp8_rules;
mod fp8_select;
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
mod rename;
mod rename_skips;
mod skip_list;

pub use cast::{Cast, cast, is_castable};
pub use dequantize::dequantized;
pub use experts::Experts;
pub use filter::Filter;
pub use fp8::{Fp8, PartialBlocks};
pub use fp8_select::Selection;
pub use lora::Lora;
pub use patch::Patch;
pub use rename::Rename;

use crate::catalog::Catalog;
use crate::error::Result;
pub use crate::kernels::fp8::ScaleFormat;
pub use crate::kernels::lanes::Precision;

/// The plan half of an operator.
pub trait Operator: std::fmt::Debug {
    /// Rewrites `catalog`: names, dtypes, shapes, config edits, warnings.
    ///
    /// # Errors
    /// If the view asked for cannot exist; the catalog is then not to be used.
    fn apply(&self, catalog: &mut Catalog) -> Result<()>;
}

/// A few of `names`, for a warning.
fn listing<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

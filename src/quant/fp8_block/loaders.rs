//! What loaders do not read as it is, for the plan to warn of.

use crate::catalog::Catalog;
use crate::quant::fp8_block::{BLOCK, weight_of};
use crate::tensor::Name;
use crate::text::{counted, listing};

/// Consumers differ in what they make of blocks that are cut off at an edge.
pub(super) fn warn_partial_blocks(catalog: &mut Catalog, partial: &[Name]) {
    if partial.is_empty() {
        return;
    }
    catalog.report.warnings.push(format!(
        "{} have dimensions that are not multiples of {BLOCK}: in merged layers (q/k/v, gate/up) vLLM from 0.14 on reads some rows with wrong scales, earlier ones and SGLang refuse them; transformers derives another block size when it dequantizes them; --partial-blocks keep leaves them in their dtype: {}",
        counted(partial.len(), "tensor"),
        listing(partial)
    ));
}

/// A tensor without a module of its own has no name that ends in `.weight`.
pub(super) fn warn_fused_experts(catalog: &mut Catalog) {
    let is_fused = |name: &str| {
        let tensor = catalog.tensors.get(name);
        tensor.is_some_and(|tensor| tensor.shape.len() == 3)
    };
    let fused: Vec<&str> = catalog
        .tensors
        .keys()
        .filter_map(|name| weight_of(name))
        .filter(|name| !name.ends_with(".weight") && is_fused(name))
        .collect();
    if !fused.is_empty() {
        let warning = format!(
            "{} are fused experts in FP8: transformers without a GPU dequantizes only names that end in .weight, and loads these wrongly; --unfuse-experts is right for it: {}",
            counted(fused.len(), "tensor"),
            listing(&fused)
        );
        catalog.report.warnings.push(warning);
    }
}

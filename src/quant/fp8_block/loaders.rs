//! What loaders do not read as it is, for the plan to warn of.

use crate::catalog::Catalog;
use crate::error::setting::{EXPERTS, PARTIAL_BLOCKS};
use crate::error::{Code, Hint, Warning};
use crate::quant::fp8_block::format::{BLOCK, weight_of};
use crate::tensor::Name;
use crate::text::{are, have, listing};

/// What engines load whole on every device, as the last part of a layer if they merge it: rows that end
/// within a block are then followed by none.
const LAST_PART: &str = ".kv_a_proj_with_mqa.weight";

/// Consumers differ in what they make of blocks that are cut off at an edge.
pub(in crate::quant) fn warn_partial_blocks(catalog: &mut Catalog, partial: &[Name]) {
    let is_last = |name: &&Name| {
        let columns = catalog.tensors.get(*name).and_then(|t| t.shape.last());
        name.ends_with(LAST_PART) && columns.is_some_and(|columns| columns % BLOCK == 0)
    };
    let (last, others): (Vec<&Name>, Vec<&Name>) = partial.iter().partition(is_last);
    if !last.is_empty() {
        let note = format!(
            "{} rows that are not multiples of {BLOCK}, as in releases of DeepSeek: vLLM and SGLang read these as the last part of a layer; transformers cannot dequantize them: {}",
            have(last.len(), "tensor"),
            listing(&last)
        );
        catalog.report.notes.push(note);
    }
    if others.is_empty() {
        return;
    }
    let problem = format!(
        "{} dimensions that are not multiples of {BLOCK}: in merged layers (q/k/v, gate/up) vLLM from 0.14 on reads some rows with wrong scales, earlier versions and SGLang refuse them; transformers derives another block size when it dequantizes them: {}",
        have(others.len(), "tensor"),
        listing(&others)
    );
    let keep = Hint::give_value(PARTIAL_BLOCKS, "keep").to("leave them in their dtype");
    let warning = Warning::new(Code::PartialBlocks, problem).with_hint(keep);
    catalog.report.warnings.push(warning);
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
        let problem = format!(
            "{} fused experts in FP8: transformers without a GPU dequantizes only names that end in .weight, and loads these wrongly: {}",
            are(fused.len(), "tensor"),
            listing(&fused)
        );
        let unfuse = Hint::give_value(EXPERTS, "unfuse").to("load them there");
        let warning = Warning::new(Code::FusedFp8, problem).with_hint(unfuse);
        catalog.report.warnings.push(warning);
    }
}

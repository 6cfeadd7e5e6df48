//! What the plan of an FP8 view warns about.

use crate::catalog::{Catalog, ReferenceReport};
use crate::ops::fp8_groups::Decision;
use crate::ops::fp8_select::{Selection, SelectionPart};
use crate::ops::{fp8_rules, listing};
use crate::shown::Show;
use crate::tensor::{Name, scaled_name};
use crate::text::counted;

/// Reports what a reference decides otherwise than the rule set, and where it and the view do not
/// have the same tensors.
pub(super) fn note_references(catalog: &mut Catalog, selection: &Selection) {
    for reference in selection.references() {
        let directory = reference.directory.shown();
        let lacking: Vec<&str> = reference
            .names
            .iter()
            .map(|name| &**name)
            .filter(|name| scaled_name(name).is_none() && !catalog.tensors.contains_key(*name))
            .collect();
        let unknown: Vec<&str> = catalog
            .tensors
            .keys()
            .map(|name| &**name)
            .filter(|name| scaled_name(name).is_none() && !reference.names.contains(*name))
            .collect();
        let (mut agreed, mut only_in_reference, mut only_by_rules) = (0, Vec::new(), Vec::new());
        for name in catalog.tensors.keys() {
            match (reference.quantized.contains(name), fp8_rules::matches(name)) {
                (true, true) => agreed += 1,
                (true, false) => only_in_reference.push(name.to_string()),
                (false, true) => only_by_rules.push(name.to_string()),
                (false, false) => {}
            }
        }
        catalog.report.references.push(ReferenceReport {
            path: reference.directory.clone(),
            agreed,
            only_in_reference,
            only_by_rules,
        });
        if !lacking.is_empty() {
            catalog.report.warnings.push(format!(
                "{} of the reference {directory} are not in the view: {}",
                counted(lacking.len(), "tensor"),
                listing(&lacking)
            ));
        }
        if !unknown.is_empty() {
            catalog.report.warnings.push(format!(
                "{} of the view are not in the reference {directory} and keep their dtype unless selected otherwise: {}",
                counted(unknown.len(), "tensor"),
                listing(&unknown)
            ));
        }
    }
}

/// Warns of each part of `selection` that quantizes nothing of `catalog`, whose tensors have the
/// `decisions` that follow from all of it together.
pub(super) fn warn_idle(catalog: &mut Catalog, selection: &Selection, decisions: &[Decision]) {
    let names: Vec<&str> = catalog.tensors.keys().map(|name| &**name).collect();
    let mut warnings = Vec::new();
    for part in selection.parts() {
        let selected = names.iter().zip(decisions);
        let selected = selected.filter(|(name, _)| part.selects(name));
        let selected: Vec<Decision> = selected.map(|(_, decision)| *decision).collect();
        let flag = part.flag();
        if selected.is_empty() {
            warnings.push(match part {
                SelectionPart::Rules => {
                    "--fp8 quantizes nothing: no tensor of this view has a name of the built-in rules"
                        .to_owned()
                }
                SelectionPart::Reference(_) => format!(
                    "{flag} quantizes nothing: no tensor that it has in FP8 is in this view"
                ),
                SelectionPart::Pattern(pattern) => pattern.unmatched("--fp8-pattern", &names),
            });
        } else if selected.iter().all(|d| *d == Decision::Quantized) {
            warnings.push(format!(
                "{flag} quantizes nothing: what it selects is FP8 already; --dtype bf16 besides quantizes it again"
            ));
        } else if !selected.contains(&Decision::Quantize) {
            warnings.push(format!(
                "{flag} quantizes nothing: --partial-blocks keep leaves what it selects in its dtype"
            ));
        }
    }
    catalog.report.warnings.extend(warnings);
}

/// Consumers differ in what they make of blocks that are cut off at an edge.
pub(super) fn warn_partial_blocks(catalog: &mut Catalog, partial: &[Name]) {
    if partial.is_empty() {
        return;
    }
    catalog.report.warnings.push(format!(
        "{} have dimensions that are not multiples of 128: in merged layers (q/k/v, gate/up) vLLM from 0.14 on reads some rows with wrong scales, earlier ones and SGLang refuse them; transformers derives another block size when it dequantizes them; --partial-blocks keep leaves them in their dtype: {}",
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
        .filter_map(|name| scaled_name(name))
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

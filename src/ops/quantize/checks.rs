//! What the plan of a quantized view warns about.

use std::path::PathBuf;

use serde::Serialize;

use crate::catalog::{Catalog, OperatorReport};
use crate::error::setting::{DTYPE, PATTERNS};
use crate::error::{Code, Hint, Warning};
use crate::ops::experts::form_of;
use crate::ops::quantize::expert_forms;
use crate::ops::quantize::groups::Decision;
use crate::ops::quantize::selection::{Rules, Selected, SelectionPart};
use crate::quant::weight_of;
use crate::shown::Show;
use crate::text::{are, counted, listing};

/// Which tensors of the view a reference has quantized, beside those that the rule set of the view,
/// or else the built-in one, would quantize. The reference decides.
#[derive(Debug, Clone, Serialize)]
pub struct ReferenceReport {
    pub path: PathBuf,
    /// Tensors that both quantize.
    pub agreed: usize,
    /// Quantized in the reference, not by the rule set.
    pub only_in_reference: Vec<String>,
    /// Quantized by the rule set, not in the reference.
    pub only_by_rules: Vec<String>,
}

impl OperatorReport for ReferenceReport {}

/// Reports what a reference decides otherwise than the rule set, and where it and the view do not
/// have the same tensors.
pub(super) fn note_references(catalog: &mut Catalog, selection: &Selected) {
    let rules = selection.rules.as_ref().unwrap_or(&Rules::Exact);
    for reference in selection.references {
        let directory = reference.directory.shown();
        let mut warnings = Vec::new();
        let explained = expert_forms::warn_of_other_forms(catalog, reference, &mut warnings);
        let is_unexplained = |name: &&str| {
            let is_explained = |(module, _)| explained.contains(module);
            weight_of(name).is_none() && !form_of(name).is_some_and(is_explained)
        };
        let lacking: Vec<&str> = reference
            .names
            .iter()
            .map(|name| &**name)
            .filter(|name| is_unexplained(name) && !catalog.tensors.contains_key(*name))
            .collect();
        let unknown: Vec<&str> = catalog
            .tensors
            .keys()
            .map(|name| &**name)
            .filter(|name| is_unexplained(name) && !reference.names.contains(*name))
            .collect();
        let (mut agreed, mut only_in_reference, mut only_by_rules) = (0, Vec::new(), Vec::new());
        for name in catalog.tensors.keys() {
            match (reference.quantized.contains(name), rules.select(name)) {
                (true, true) => agreed += 1,
                (true, false) => only_in_reference.push(name.to_string()),
                (false, true) => only_by_rules.push(name.to_string()),
                (false, false) => {}
            }
        }
        if !lacking.is_empty() {
            warnings.push(Warning::new(
                Code::BadReference,
                format!(
                    "{} of the reference {directory} are not in the view: {}",
                    counted(lacking.len(), "tensor"),
                    listing(&lacking)
                ),
            ));
        }
        if !unknown.is_empty() {
            warnings.push(Warning::new(Code::BadReference, format!(
                "{} of the view are not in the reference {directory} and keep their dtype unless selected otherwise: {}",
                counted(unknown.len(), "tensor"),
                listing(&unknown)
            )));
        }
        catalog.report.add(ReferenceReport {
            path: reference.directory.clone(),
            agreed,
            only_in_reference,
            only_by_rules,
        });
        catalog.report.warnings.extend(warnings);
    }
}

/// Warns of tensors that the rules select and whose shape does not fit, each with the reason.
pub(super) fn warn_unfit(catalog: &mut Catalog, unfit: &[String]) {
    if !unfit.is_empty() {
        let problem = format!(
            "{} left unquantized, because the shape does not fit the scheme: {}",
            are(unfit.len(), "selected tensor"),
            listing(unfit)
        );
        let warning = Warning::new(Code::PartialBlocks, problem);
        catalog.report.warnings.push(warning);
    }
}

/// Warns of each part of `selection` that quantizes nothing of `catalog`, whose tensors have the
/// `decisions` that follow from all of it together.
pub(super) fn warn_idle(catalog: &mut Catalog, selection: &Selected, decisions: &[Decision]) {
    let names: Vec<&str> = catalog.tensors.keys().map(|name| &**name).collect();
    let mut warnings = Vec::new();
    for part in selection.parts() {
        let selected = names.iter().zip(decisions);
        let selected = selected.filter(|(name, _)| part.selects(name));
        let selected: Vec<Decision> = selected.map(|(_, decision)| *decision).collect();
        let idle = |problem: &str| selection.warning(part, Code::NoEffect, problem);
        if selected.is_empty() {
            warnings.push(match part {
                SelectionPart::Rules(_) => {
                    idle("it quantizes nothing: no tensor of this view has a name of these rules")
                }
                SelectionPart::Reference(_) => {
                    idle("it quantizes nothing: no tensor that it has quantized is in this view")
                }
                SelectionPart::Pattern(pattern) => pattern.unmatched(PATTERNS, &names),
            });
        } else if selected.iter().all(|d| *d == Decision::Quantized) {
            let warning =
                idle("it quantizes nothing: the tensors it selects are quantized already");
            let again = Hint::give_value(DTYPE, "bf16").to("dequantize them first");
            warnings.push(warning.with_hint(again));
        } else if !selected.contains(&Decision::Quantize) {
            warnings.push(idle(
                "it quantizes nothing: all tensors it selects have partial blocks, or shapes that do not fit, and those keep their dtype",
            ));
        }
    }
    catalog.report.warnings.extend(warnings);
}

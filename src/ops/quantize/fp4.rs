//! What the plan says of weights that were FP4, whose numbers a quantized view may have exactly.

use indexmap::IndexMap;

use crate::catalog::{Catalog, NumberKind, Tensor};
use crate::error::setting::ALLOW_ROUNDING;
use crate::error::{Code, Hint, Warning};
use crate::quant::{Encoding, Exactness, Rounding};
use crate::tensor::Name;
use crate::text::{are, listing};

/// Weights that were FP4 and are quantized, by what becomes of their numbers.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// Whether there are any, also of those that may be rounded.
    are_some: bool,
    exact: Vec<Name>,
    rounded: IndexMap<Rounding, Vec<Name>>,
}

impl Converted {
    /// Adds the weight `tensor`, called `name`, which `encoding` encodes.
    pub(super) fn add(&mut self, encoding: &dyn Encoding, name: &Name, tensor: &Tensor) {
        self.are_some |= tensor.number_kind() != NumberKind::Any;
        match encoding.exactness(tensor) {
            Exactness::NotExpected => {}
            Exactness::Exact => self.exact.push(name.clone()),
            Exactness::Rounded(rounding) => {
                let rounded = self.rounded.entry(rounding).or_default();
                rounded.push(name.clone());
            }
        }
    }

    /// Notes what is exact, and warns of what is rounded, and of a permission to round that nothing needs.
    pub(super) fn note(self, catalog: &mut Catalog, allows_rounding: bool) {
        if allows_rounding && !self.are_some {
            let problem = "it has no effect: no weight that is quantized was FP4";
            let warning = Warning::new(Code::NoEffect, problem).about(ALLOW_ROUNDING);
            catalog.report.warnings.push(warning);
        }
        if !self.exact.is_empty() {
            let note = format!(
                "{} converted from FP4 to FP8 exactly, which is checked where they are read: {}",
                are(self.exact.len(), "tensor"),
                listing(&self.exact)
            );
            catalog.report.notes.push(note);
        }
        for (Rounding { why, instead }, names) in self.rounded {
            let problem = format!(
                "{} converted from FP4 with rounding, because {why}: {}",
                are(names.len(), "tensor"),
                listing(&names)
            );
            let accept = Hint::give(ALLOW_ROUNDING).to("accept it");
            let hint = match instead {
                Some((setting, value)) => {
                    let exact = Hint::give_value(setting, value).to("have the same numbers");
                    exact.or(accept)
                }
                None => accept,
            };
            let warning = Warning::new(Code::Inexact, problem).with_hint(hint);
            catalog.report.warnings.push(warning);
        }
    }
}

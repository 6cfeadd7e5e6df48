//! The two forms, and the projections that are in each.

use indexmap::IndexSet;

use crate::catalog::Catalog;
use crate::error::setting::LINEAR_ATTENTION;
use crate::error::{Code, Error, Hint, Result};
use crate::named::{Named, named};
use crate::quant;

/// Gives the input projections of linear attention one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearAttention {
    /// `in_proj_qkvz` and `in_proj_ba` become `in_proj_qkv`, `in_proj_z`, `in_proj_b` and `in_proj_a`.
    Split,
    /// The reverse.
    Join,
}

named!(LinearAttention {
    Split: "split",
    Join: "join",
});

pub(super) const QKVZ: &str = "in_proj_qkvz";
pub(super) const BA: &str = "in_proj_ba";
pub(super) const QKV: &str = "in_proj_qkv";
pub(super) const Z: &str = "in_proj_z";
pub(super) const B: &str = "in_proj_b";
pub(super) const A: &str = "in_proj_a";

impl LinearAttention {
    /// The projections that it changes.
    pub(super) fn from(self) -> &'static [&'static str] {
        match self {
            LinearAttention::Split => &[QKVZ, BA],
            LinearAttention::Join => &[QKV, Z, B, A],
        }
    }
}

impl LinearAttention {
    /// The modules that have projections which it changes.
    pub(super) fn modules(self, catalog: &Catalog) -> Result<IndexSet<String>> {
        let mut modules = IndexSet::new();
        for (name, tensor) in &catalog.tensors {
            let weight = quant::weight_of(name).unwrap_or(name);
            let Some((path, rest)) = weight.rsplit_once('.') else {
                continue;
            };
            let Some((module, projection)) = path.rsplit_once('.') else {
                continue;
            };
            if !self.from().contains(&projection) {
                continue;
            }
            if rest != "weight" {
                let problem = "it belongs to a projection of linear attention, of which only the weight and its scales can be moved";
                let error =
                    Error::of_tensor(Code::ProjectionLayout, tensor.origin(), name, problem);
                return Err(error.with_hint(Hint::leave_out_value(LINEAR_ATTENTION, self.name())));
            }
            modules.insert(module.to_owned());
        }
        Ok(modules)
    }
}

/// Whether two tensors, each in one of the forms, hold rows of the same: of q, k, v and z, or of b and a.
pub(super) fn hold_the_same(a: &str, b: &str) -> bool {
    let is_of_heads = |name: &str| {
        let mut parts = name.rsplit('.');
        parts.any(|part| matches!(part, QKVZ | QKV | Z))
    };
    is_of_heads(a) == is_of_heads(b)
}

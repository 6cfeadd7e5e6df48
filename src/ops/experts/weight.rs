//! The weights of experts, by name, and what of them cannot be moved where they are quantized.

use crate::error::{Code, Result};
use crate::ops::weight::{Quantized, Weight};

pub(in crate::ops) const GATE: &str = "gate_proj";
pub(in crate::ops) const UP: &str = "up_proj";
pub(in crate::ops) const DOWN: &str = "down_proj";
pub(in crate::ops) const GATE_UP: &str = "gate_up_proj";

/// What is called like a weight, and then so, is its bias: of fused ones, and of single ones.
pub(super) const FUSED_BIAS: &str = "_bias";
pub(super) const WEIGHT: &str = ".weight";
pub(super) const BIAS: &str = ".bias";

/// How the weights of a single expert are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Singles {
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

impl Singles {
    /// As most call them.
    pub(super) const PROJECTIONS: Singles = Singles {
        gate: GATE,
        up: UP,
        down: DOWN,
    };
    /// As Mixtral calls them.
    pub(super) const NUMBERED: Singles = Singles {
        gate: "w1",
        up: "w3",
        down: "w2",
    };

    /// Those of which one is called `projection`.
    pub(super) fn with(projection: &str) -> Option<Self> {
        let known = [Self::PROJECTIONS, Self::NUMBERED].into_iter();
        known
            .into_iter()
            .find(|singles| singles.all().contains(&projection))
    }

    pub(super) fn all(self) -> [&'static str; 3] {
        [self.gate, self.up, self.down]
    }
}

/// Whether two tensors of the experts of one layer, in either form, hold the same weights: those of down,
/// or those of gate and up.
pub(super) fn are_of_one_kind(a: &str, b: &str) -> bool {
    let is_down = |name: &str| {
        in_experts(name).is_some_and(|(_, rest)| {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            rest.starts_with(DOWN) || rest.starts_with(Singles::NUMBERED.down)
        })
    };
    is_down(a) == is_down(b)
}

/// `model.layers.0.mlp.experts.7.up_proj.weight` → (`model.layers.0.mlp.experts`,
/// `7.up_proj.weight`).
pub(super) fn in_experts(name: &str) -> Option<(&str, &str)> {
    const EXPERTS: &str = "experts.";
    let start = match name.rfind(".experts.") {
        Some(dot) => dot + 1,
        None if name.starts_with(EXPERTS) => 0,
        None => return None,
    };
    let rest = start + EXPERTS.len();
    Some((&name[..rest - 1], &name[rest..]))
}

impl Weight<'_> {
    /// Checks that it is not quantized, where its rows would become columns.
    pub(super) fn check_not_turned(&self) -> Result<()> {
        let Some(Quantized { scheme, .. }) = self.quantized else {
            return Ok(());
        };
        Err(self.error(Code::BadScales, format!(
            "it is {}, and its family stores fused experts transposed: its blocks would be cut or transposed, which is not done",
            scheme.name()
        )).with_hint("start from unquantized experts"))
    }

    /// Checks that no block holds rows of gate and of up, which have `rows` rows each.
    pub(super) fn check_blocks_part(&self, rows: u64) -> Result<()> {
        let Some(Quantized { scheme, .. }) = self.quantized else {
            return Ok(());
        };
        let block = scheme.block_rows();
        if rows.is_multiple_of(block) {
            return Ok(());
        }
        Err(self.error(Code::BadScales, format!(
            "it is {}, and gate and up have {rows} rows each, which is no multiple of {block}: fused, they share blocks, and apart they do not",
            scheme.name()
        )).with_hint("start from unquantized experts"))
    }
}

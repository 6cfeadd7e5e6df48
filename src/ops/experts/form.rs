//! The two forms of experts, and which of them a tensor's name is of.

use crate::named::named;
use crate::ops::experts::weight::{DOWN, GATE_UP, Singles, UP, in_experts};

/// Gives experts one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experts {
    /// Fused tensors become tensors of single experts.
    Unfuse,
    /// Tensors of single experts become fused ones.
    Fuse,
}

named!(Experts {
    Unfuse: "unfuse",
    Fuse: "fuse",
});

/// The module of the experts that a weight called `name` is of, and what would change its form:
/// `model.layers.0.mlp.experts.gate_up_proj` → (`model.layers.0.mlp.experts`, [`Experts::Unfuse`]).
pub(in crate::ops) fn form_of(name: &str) -> Option<(&str, Experts)> {
    let (experts, rest) = in_experts(name)?;
    if matches!(rest, GATE_UP | UP | DOWN) {
        return Some((experts, Experts::Unfuse));
    }
    let (number, projection) = rest.strip_suffix(".weight")?.split_once('.')?;
    let is_single = number.parse::<u64>().is_ok() && Singles::with(projection).is_some();
    is_single.then_some((experts, Experts::Fuse))
}

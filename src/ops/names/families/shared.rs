//! Rules that language models and models with towers share.

use crate::ops::names::families::rule::{Rule, Step, converted};

/// Single experts, stacked; those of gate and up in one.
pub(super) const STACKED: &[Step] = &[Step::Stack];
pub(super) const FUSED: &[Step] = &[Step::Concatenate, Step::Stack];
pub(super) const CONCATENATED: &[Step] = &[Step::Concatenate];
pub(super) const CHUNKED: &[Step] = &[Step::Chunk];

pub(super) const EXPERTS: &[Rule] = &[
    converted(
        &[
            "mlp.experts.#.gate_proj.weight",
            "mlp.experts.#.up_proj.weight",
        ],
        &["mlp.experts.gate_up_proj"],
        FUSED,
    ),
    converted(
        &["mlp.experts.#.down_proj.weight"],
        &["mlp.experts.down_proj"],
        STACKED,
    ),
];

pub(super) const BLOCK_SPARSE_EXPERTS: &[Rule] = &[
    converted(
        &[
            "block_sparse_moe.experts.#.w1.weight",
            "block_sparse_moe.experts.#.w3.weight",
        ],
        &["mlp.experts.gate_up_proj"],
        FUSED,
    ),
    converted(
        &["block_sparse_moe.experts.#.w2.weight"],
        &["mlp.experts.down_proj"],
        STACKED,
    ),
];

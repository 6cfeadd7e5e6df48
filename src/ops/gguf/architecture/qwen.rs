//! Qwen2, Qwen3 and Qwen3-MoE.

use crate::ops::gguf::architecture::llama::{ENDS, MLP, OUTPUT_AND_NORMS};
use crate::ops::gguf::architecture::rule::{
    Architecture, Change, TensorRule, changed, ending, same,
};

pub(super) static QWEN2: Architecture = Architecture {
    name: "qwen2",
    classes: &["Qwen2ForCausalLM"],
    tensors: &[ENDS, ATTENTION, OUTPUT_AND_NORMS, MLP],
    former: &[],
};

pub(super) static QWEN3: Architecture = Architecture {
    name: "qwen3",
    classes: &["Qwen3ForCausalLM"],
    tensors: &[ENDS, ATTENTION, HEAD_NORMS, OUTPUT_AND_NORMS, MLP],
    former: &[],
};

pub(super) static QWEN3_MOE: Architecture = Architecture {
    name: "qwen3moe",
    classes: &["Qwen3MoeForCausalLM"],
    tensors: &[
        ENDS,
        ATTENTION,
        HEAD_NORMS,
        OUTPUT_AND_NORMS,
        ROUTER,
        EXPERTS,
        FUSED_EXPERTS,
    ],
    former: &[],
};

pub(super) const ATTENTION: &[TensorRule] = &[
    same("model.layers.{l}.self_attn.q_proj", &["blk.{l}.attn_q"]),
    same("model.layers.{l}.self_attn.k_proj", &["blk.{l}.attn_k"]),
    same("model.layers.{l}.self_attn.v_proj", &["blk.{l}.attn_v"]),
];

const HEAD_NORMS: &[TensorRule] = &[
    same(
        "model.layers.{l}.self_attn.q_norm",
        &["blk.{l}.attn_q_norm"],
    ),
    same(
        "model.layers.{l}.self_attn.k_norm",
        &["blk.{l}.attn_k_norm"],
    ),
];

pub(super) const ROUTER: &[TensorRule] =
    &[same("model.layers.{l}.mlp.gate", &["blk.{l}.ffn_gate_inp"])];

/// Single experts, whose stacks are written in the order down, gate, up once all of a layer are there.
pub(super) const EXPERTS: &[TensorRule] = &[
    changed(
        "model.layers.{l}.mlp.experts.{e}.down_proj",
        &["blk.{l}.ffn_down_exps"],
        Change::Stack,
    ),
    changed(
        "model.layers.{l}.mlp.experts.{e}.gate_proj",
        &["blk.{l}.ffn_gate_exps"],
        Change::Stack,
    ),
    changed(
        "model.layers.{l}.mlp.experts.{e}.up_proj",
        &["blk.{l}.ffn_up_exps"],
        Change::Stack,
    ),
];

/// The experts of a layer in two tensors.
pub(super) const FUSED_EXPERTS: &[TensorRule] = &[
    ending(
        ("model.layers.{l}.mlp.experts.down_proj", ""),
        (&["blk.{l}.ffn_down_exps"], ".weight"),
        Change::None,
    ),
    ending(
        ("model.layers.{l}.mlp.experts.gate_up_proj", ""),
        (&["blk.{l}.ffn_gate_exps", "blk.{l}.ffn_up_exps"], ".weight"),
        Change::Halves,
    ),
];

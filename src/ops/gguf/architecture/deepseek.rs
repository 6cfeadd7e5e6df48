//! DeepSeek V2 and V3, and R1, which is V3.

use crate::ops::gguf::architecture::llama::{ENDS, MLP, OUTPUT_AND_NORMS};
use crate::ops::gguf::architecture::qwen::{EXPERTS, ROUTER};
use crate::ops::gguf::architecture::rule::{
    Architecture, Change, TensorRule, changed, ending, same,
};

pub(super) static DEEPSEEK2: Architecture = Architecture {
    name: "deepseek2",
    classes: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"],
    tensors: &[
        ENDS,
        ATTENTION,
        OUTPUT_AND_NORMS,
        MLP,
        ROUTER,
        EXPERTS,
        CHOICE_AND_SHARED,
    ],
    former: UNCUT,
};

const ATTENTION: &[TensorRule] = &[
    same("model.layers.{l}.self_attn.q_proj", &["blk.{l}.attn_q"]),
    same("model.layers.{l}.self_attn.q_a_proj", &["blk.{l}.attn_q_a"]),
    same("model.layers.{l}.self_attn.q_b_proj", &["blk.{l}.attn_q_b"]),
    same(
        "model.layers.{l}.self_attn.q_a_layernorm",
        &["blk.{l}.attn_q_a_norm"],
    ),
    same(
        "model.layers.{l}.self_attn.kv_a_proj_with_mqa",
        &["blk.{l}.attn_kv_a_mqa"],
    ),
    same(
        "model.layers.{l}.self_attn.kv_a_layernorm",
        &["blk.{l}.attn_kv_a_norm"],
    ),
    changed(
        "model.layers.{l}.self_attn.kv_b_proj",
        &["blk.{l}.attn_k_b", "blk.{l}.attn_v_b"],
        Change::SplitKeyValue,
    ),
];

/// Before llama.cpp computed with latent keys and values, files had the projection as it is.
const UNCUT: &[TensorRule] = &[same(
    "model.layers.{l}.self_attn.kv_b_proj",
    &["blk.{l}.attn_kv_b"],
)];

/// Stacks are written in the order down, gate, up once all experts of a layer are there.
const CHOICE_AND_SHARED: &[TensorRule] = &[
    ending(
        ("model.layers.{l}.mlp.gate.e_score_correction_bias", ""),
        (&["blk.{l}.exp_probs_b"], ".bias"),
        Change::None,
    ),
    same(
        "model.layers.{l}.mlp.shared_experts.gate_proj",
        &["blk.{l}.ffn_gate_shexp"],
    ),
    same(
        "model.layers.{l}.mlp.shared_experts.up_proj",
        &["blk.{l}.ffn_up_shexp"],
    ),
    same(
        "model.layers.{l}.mlp.shared_experts.down_proj",
        &["blk.{l}.ffn_down_shexp"],
    ),
];

//! Llama, and what has its layout: Mistral, Mixtral, SmolLM.

use crate::ops::gguf::architecture::rule::{
    Architecture, Change, Heads, TensorRule, changed, same,
};

pub(super) static LLAMA: Architecture = Architecture {
    name: "llama",
    classes: &[
        "LlamaForCausalLM",
        "LLaMAForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
    ],
    tensors: &[ENDS, ATTENTION, OUTPUT_AND_NORMS, MLP, MIXTRAL],
    former: &[],
};

/// The tensors before and after the layers.
pub(super) const ENDS: &[TensorRule] = &[
    same("model.embed_tokens", &["token_embd"]),
    same("model.norm", &["output_norm"]),
    same("lm_head", &["output"]),
];

const ATTENTION: &[TensorRule] = &[
    changed(
        "model.layers.{l}.self_attn.q_proj",
        &["blk.{l}.attn_q"],
        Change::Rope(Heads::Attention),
    ),
    changed(
        "model.layers.{l}.self_attn.k_proj",
        &["blk.{l}.attn_k"],
        Change::Rope(Heads::KeyValue),
    ),
    same("model.layers.{l}.self_attn.v_proj", &["blk.{l}.attn_v"]),
];

pub(super) const OUTPUT_AND_NORMS: &[TensorRule] = &[
    same(
        "model.layers.{l}.self_attn.o_proj",
        &["blk.{l}.attn_output"],
    ),
    same("model.layers.{l}.input_layernorm", &["blk.{l}.attn_norm"]),
    same(
        "model.layers.{l}.post_attention_layernorm",
        &["blk.{l}.ffn_norm"],
    ),
];

pub(super) const MLP: &[TensorRule] = &[
    same("model.layers.{l}.mlp.gate_proj", &["blk.{l}.ffn_gate"]),
    same("model.layers.{l}.mlp.up_proj", &["blk.{l}.ffn_up"]),
    same("model.layers.{l}.mlp.down_proj", &["blk.{l}.ffn_down"]),
];

/// Stacks are written in the order w1, w2, w3 once all experts of a layer are there.
const MIXTRAL: &[TensorRule] = &[
    same(
        "model.layers.{l}.block_sparse_moe.gate",
        &["blk.{l}.ffn_gate_inp"],
    ),
    changed(
        "model.layers.{l}.block_sparse_moe.experts.{e}.w1",
        &["blk.{l}.ffn_gate_exps"],
        Change::Stack,
    ),
    changed(
        "model.layers.{l}.block_sparse_moe.experts.{e}.w2",
        &["blk.{l}.ffn_down_exps"],
        Change::Stack,
    ),
    changed(
        "model.layers.{l}.block_sparse_moe.experts.{e}.w3",
        &["blk.{l}.ffn_up_exps"],
        Change::Stack,
    ),
];

//! gpt-oss.

use crate::ops::gguf::architecture::llama::ENDS;
use crate::ops::gguf::architecture::qwen::ATTENTION;
use crate::ops::gguf::architecture::rule::{Architecture, Change, TensorRule, ending, same};

pub(super) static GPT_OSS: Architecture = Architecture {
    name: "gpt-oss",
    classes: &["GptOssForCausalLM"],
    tensors: &[ENDS, ATTENTION, LAYER, EXPERTS],
    former: &[],
};

const LAYER: &[TensorRule] = &[
    same(
        "model.layers.{l}.self_attn.o_proj",
        &["blk.{l}.attn_output"],
    ),
    ending(
        ("model.layers.{l}.self_attn.sinks", ""),
        (&["blk.{l}.attn_sinks"], ".weight"),
        Change::None,
    ),
    same("model.layers.{l}.input_layernorm", &["blk.{l}.attn_norm"]),
    same(
        "model.layers.{l}.post_attention_layernorm",
        &["blk.{l}.post_attention_norm"],
    ),
    same("model.layers.{l}.mlp.router", &["blk.{l}.ffn_gate_inp"]),
];

/// Experts in MXFP4, or in plain numbers.
const EXPERTS: &[TensorRule] = &[
    ending(
        ("model.layers.{l}.mlp.experts.down_proj", "_blocks"),
        (&["blk.{l}.ffn_down_exps"], ".weight"),
        Change::Mxfp4,
    ),
    ending(
        ("model.layers.{l}.mlp.experts.gate_up_proj", "_blocks"),
        (&["blk.{l}.ffn_gate_exps", "blk.{l}.ffn_up_exps"], ".weight"),
        Change::Mxfp4EvenOdd,
    ),
    ending(
        ("model.layers.{l}.mlp.experts.down_proj", ""),
        (&["blk.{l}.ffn_down_exps"], ".weight"),
        Change::Transpose,
    ),
    ending(
        ("model.layers.{l}.mlp.experts.gate_up_proj", ""),
        (&["blk.{l}.ffn_gate_exps", "blk.{l}.ffn_up_exps"], ".weight"),
        Change::EvenOddTransposed,
    ),
    ending(
        ("model.layers.{l}.mlp.experts.down_proj", "_bias"),
        (&["blk.{l}.ffn_down_exps"], ".bias"),
        Change::None,
    ),
    ending(
        ("model.layers.{l}.mlp.experts.gate_up_proj", "_bias"),
        (&["blk.{l}.ffn_gate_exps", "blk.{l}.ffn_up_exps"], ".bias"),
        Change::EvenOdd,
    ),
];

//! Gemma 3.

use crate::ops::gguf::architecture::llama::MLP;
use crate::ops::gguf::architecture::qwen::ATTENTION;
use crate::ops::gguf::architecture::rule::{Architecture, Change, TensorRule, changed, same};

pub(super) static GEMMA3: Architecture = Architecture {
    name: "gemma3",
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    tensors: &[ENDS, ATTENTION, NORMS_BY_ONE, FEED_FORWARD_NORMS, MLP],
    former: &[],
};

const ENDS: &[TensorRule] = &[
    changed("model.embed_tokens", &["token_embd"], Change::CutVocabulary),
    changed("model.norm", &["output_norm"], Change::PlusOne),
    same("lm_head", &["output"]),
];

/// The norms of attention, which are added to one, and its output.
pub(super) const NORMS_BY_ONE: &[TensorRule] = &[
    same(
        "model.layers.{l}.self_attn.o_proj",
        &["blk.{l}.attn_output"],
    ),
    changed(
        "model.layers.{l}.self_attn.q_norm",
        &["blk.{l}.attn_q_norm"],
        Change::PlusOne,
    ),
    changed(
        "model.layers.{l}.self_attn.k_norm",
        &["blk.{l}.attn_k_norm"],
        Change::PlusOne,
    ),
    changed(
        "model.layers.{l}.input_layernorm",
        &["blk.{l}.attn_norm"],
        Change::PlusOne,
    ),
    changed(
        "model.layers.{l}.post_attention_layernorm",
        &["blk.{l}.post_attention_norm"],
        Change::PlusOne,
    ),
];

/// The norms around the feed-forward part.
const FEED_FORWARD_NORMS: &[TensorRule] = &[
    changed(
        "model.layers.{l}.pre_feedforward_layernorm",
        &["blk.{l}.ffn_norm"],
        Change::PlusOne,
    ),
    changed(
        "model.layers.{l}.post_feedforward_layernorm",
        &["blk.{l}.post_ffw_norm"],
        Change::PlusOne,
    ),
];

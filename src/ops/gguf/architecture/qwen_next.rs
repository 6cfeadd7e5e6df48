//! Qwen3-Next and Qwen3.5: layers of linear attention among those of attention, and layers that predict more
//! tokens after all others.

use crate::ops::gguf::architecture::gemma::NORMS_BY_ONE;
use crate::ops::gguf::architecture::llama::MLP;
use crate::ops::gguf::architecture::qwen::{ATTENTION, EXPERTS, FUSED_EXPERTS, ROUTER};
use crate::ops::gguf::architecture::rule::{
    Architecture, Change, TensorRule, changed, ending, same,
};

pub(super) static QWEN3_NEXT: Architecture = Architecture {
    name: "qwen3next",
    classes: &["Qwen3NextForCausalLM"],
    tensors: &[
        ENDS,
        ATTENTION,
        NORMS_BY_ONE,
        LINEAR_NORM,
        BY_KEY_HEAD,
        NEXTN,
        ROUTER,
        EXPERTS,
        FUSED_EXPERTS,
        SHARED_EXPERT,
    ],
    former: &[],
};

pub(super) static QWEN35: Architecture = Architecture {
    name: "qwen35",
    classes: &["Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"],
    tensors: &[
        ENDS,
        ATTENTION,
        NORMS_BY_ONE,
        LINEAR_NORM,
        BY_PROJECTION,
        NEXTN,
        MLP,
    ],
    former: &[],
};

pub(super) static QWEN35_MOE: Architecture = Architecture {
    name: "qwen35moe",
    classes: &[
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen3_5MoeForCausalLM",
    ],
    tensors: &[
        ENDS,
        ATTENTION,
        NORMS_BY_ONE,
        LINEAR_NORM,
        BY_PROJECTION,
        NEXTN,
        ROUTER,
        EXPERTS,
        FUSED_EXPERTS,
        SHARED_EXPERT,
    ],
    former: &[],
};

const ENDS: &[TensorRule] = &[
    same("model.embed_tokens", &["token_embd"]),
    changed("model.norm", &["output_norm"], Change::PlusOne),
    same("lm_head", &["output"]),
];

const LINEAR_NORM: &[TensorRule] = &[same(
    "model.layers.{l}.linear_attn.norm",
    &["blk.{l}.ssm_norm"],
)];

/// Qwen3-Next: q, k, v and z of a key head are together.
const BY_KEY_HEAD: &[TensorRule] = &[
    changed(
        "model.layers.{l}.linear_attn.in_proj_qkvz",
        &["blk.{l}.attn_qkv", "blk.{l}.attn_gate"],
        Change::SplitByKeyHead,
    ),
    same(
        "model.layers.{l}.linear_attn.in_proj_ba",
        &["blk.{l}.ssm_ba"],
    ),
    changed(
        "model.layers.{l}.linear_attn.conv1d",
        &["blk.{l}.ssm_conv1d"],
        Change::Squeeze,
    ),
    ending(
        ("model.layers.{l}.linear_attn.A_log", ""),
        (&["blk.{l}.ssm_a"], ""),
        Change::MinusExp,
    ),
    ending(
        ("model.layers.{l}.linear_attn.dt_bias", ""),
        (&["blk.{l}.ssm_dt"], ".bias"),
        Change::None,
    ),
    same(
        "model.layers.{l}.linear_attn.out_proj",
        &["blk.{l}.ssm_out"],
    ),
];

/// Qwen3.5: a tensor for each projection.
const BY_PROJECTION: &[TensorRule] = &[
    changed(
        "model.layers.{l}.linear_attn.in_proj_qkv",
        &["blk.{l}.attn_qkv"],
        Change::TileRows,
    ),
    changed(
        "model.layers.{l}.linear_attn.in_proj_z",
        &["blk.{l}.attn_gate"],
        Change::TileRows,
    ),
    changed(
        "model.layers.{l}.linear_attn.in_proj_a",
        &["blk.{l}.ssm_alpha"],
        Change::TileHeads,
    ),
    changed(
        "model.layers.{l}.linear_attn.in_proj_b",
        &["blk.{l}.ssm_beta"],
        Change::TileHeads,
    ),
    changed(
        "model.layers.{l}.linear_attn.conv1d",
        &["blk.{l}.ssm_conv1d"],
        Change::SqueezeAndTile,
    ),
    ending(
        ("model.layers.{l}.linear_attn.A_log", ""),
        (&["blk.{l}.ssm_a"], ""),
        Change::TileHeadsMinusExp,
    ),
    ending(
        ("model.layers.{l}.linear_attn.dt_bias", ""),
        (&["blk.{l}.ssm_dt"], ".bias"),
        Change::TileHeads,
    ),
    changed(
        "model.layers.{l}.linear_attn.out_proj",
        &["blk.{l}.ssm_out"],
        Change::TileColumns,
    ),
];

/// Layers that predict more tokens. In Hugging Face's layout they are `mtp.layers.i`, layer n + i here, and
/// what all of them share is `mtp.…`, of layer n.
const NEXTN: &[TensorRule] = &[
    same("model.layers.{l}.eh_proj", &["blk.{l}.nextn.eh_proj"]),
    changed(
        "model.layers.{l}.enorm",
        &["blk.{l}.nextn.enorm"],
        Change::PlusOne,
    ),
    changed(
        "model.layers.{l}.hnorm",
        &["blk.{l}.nextn.hnorm"],
        Change::PlusOne,
    ),
    changed(
        "model.layers.{l}.shared_head.norm",
        &["blk.{l}.nextn.shared_head_norm"],
        Change::PlusOne,
    ),
];

const SHARED_EXPERT: &[TensorRule] = &[
    same(
        "model.layers.{l}.mlp.shared_expert_gate",
        &["blk.{l}.ffn_gate_inp_shexp"],
    ),
    same(
        "model.layers.{l}.mlp.shared_expert.gate_proj",
        &["blk.{l}.ffn_gate_shexp"],
    ),
    same(
        "model.layers.{l}.mlp.shared_expert.up_proj",
        &["blk.{l}.ffn_up_shexp"],
    ),
    same(
        "model.layers.{l}.mlp.shared_expert.down_proj",
        &["blk.{l}.ffn_down_shexp"],
    ),
];

//! Language models; and one with a tower whose layouts differ in the language model alone.

use crate::ops::names::families::rule::{Family, Rule, converted, name};
use crate::ops::names::families::shared::{
    BLOCK_SPARSE_EXPERTS, CHUNKED, CONCATENATED, EXPERTS, FUSED, STACKED,
};

/// The convolutions of linear attention, and its gate, which transformers has as a module.
const CONVOLUTIONS: &[Rule] = &[converted(
    &["q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight"],
    &["conv1d.weight"],
    CONCATENATED,
)];

const FORGET_GATE: &[Rule] = &[
    name("self_attn.f_a_proj", "self_attn.forget_gate.f_a_proj"),
    name("self_attn.f_b_proj", "self_attn.forget_gate.f_b_proj"),
    name("self_attn.dt_bias", "self_attn.forget_gate.dt_bias"),
    name("self_attn.A_log", "self_attn.forget_gate.A_log"),
];

const HYPER_CONNECTIONS: &[Rule] = &[
    name("hc_attn_fn", "attn_hc.fn"),
    name("hc_attn_base", "attn_hc.base"),
    name("hc_attn_scale", "attn_hc.scale"),
    name("hc_ffn_fn", "ffn_hc.fn"),
    name("hc_ffn_base", "ffn_hc.base"),
    name("hc_ffn_scale", "ffn_hc.scale"),
];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        model_types: &[
            "afmoe",
            "cohere2_moe",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "dots1",
            "flex_olmo",
            "glm4_moe",
            "glm4_moe_lite",
            "glm4v_moe",
            "glm_moe_dsa",
            "hunyuan_v1_moe",
            "mellum",
            "olmoe",
            "qwen2_moe",
            "qwen3_5_moe",
            "qwen3_5_moe_text",
            "qwen3_moe",
            "qwen3_next",
            "solar_open",
        ],
        rules: &[EXPERTS],
    },
    Family {
        model_types: &["ernie4_5_moe"],
        rules: &[EXPERTS, &[name("mlp.moe_statics", "mlp.gate.moe_statics")]],
    },
    Family {
        model_types: &["exaone_moe"],
        rules: &[
            EXPERTS,
            &[name(
                "mlp.e_score_correction_bias",
                "mlp.gate.e_score_correction_bias",
            )],
        ],
    },
    Family {
        model_types: &["mimo_v2_flash"],
        rules: &[
            EXPERTS,
            &[name("self_attn.attention_sink_bias", "self_attn.sinks")],
        ],
    },
    Family {
        model_types: &["hy_v3"],
        rules: &[
            EXPERTS,
            &[
                name("mlp.router.gate", "mlp.gate"),
                name("mlp.expert_bias", "mlp.e_score_correction_bias"),
                name("mlp.shared_mlp", "mlp.shared_experts"),
            ],
        ],
    },
    Family {
        model_types: &["laguna"],
        rules: &[
            EXPERTS,
            &[
                name(
                    "mlp.experts.e_score_correction_bias",
                    "mlp.gate.e_score_correction_bias",
                ),
                name("mlp.shared_expert", "mlp.shared_experts"),
            ],
        ],
    },
    Family {
        model_types: &["axk1"],
        rules: &[
            EXPERTS,
            &[name(
                "layers.#.post_mlp_layernorm",
                "layers.#.mlp.post_mlp_layernorm",
            )],
        ],
    },
    Family {
        model_types: &["minimax", "minimax_m2", "mixtral"],
        rules: &[BLOCK_SPARSE_EXPERTS, &[name("block_sparse_moe", "mlp")]],
    },
    Family {
        model_types: &["phimoe"],
        rules: &[
            BLOCK_SPARSE_EXPERTS,
            &[name("block_sparse_moe.gate", "mlp.router")],
        ],
    },
    Family {
        model_types: &["lfm2_moe"],
        rules: &[&[
            converted(
                &[
                    "feed_forward.experts.#.w1.weight",
                    "feed_forward.experts.#.w3.weight",
                ],
                &["feed_forward.experts.gate_up_proj"],
                FUSED,
            ),
            converted(
                &["feed_forward.experts.#.w2.weight"],
                &["feed_forward.experts.down_proj"],
                STACKED,
            ),
        ]],
    },
    Family {
        model_types: &["jamba"],
        rules: &[&[
            converted(
                &[
                    "feed_forward.experts.#.gate_proj.weight",
                    "feed_forward.experts.#.up_proj.weight",
                ],
                &["feed_forward.experts.gate_up_proj"],
                FUSED,
            ),
            converted(
                &["feed_forward.experts.#.down_proj.weight"],
                &["feed_forward.experts.down_proj"],
                STACKED,
            ),
        ]],
    },
    Family {
        model_types: &["nemotron_h"],
        rules: &[&[
            name("^backbone", "^model"),
            converted(
                &["mixer.experts.#.up_proj.weight"],
                &["mixer.experts.up_proj"],
                STACKED,
            ),
            converted(
                &["mixer.experts.#.down_proj.weight"],
                &["mixer.experts.down_proj"],
                STACKED,
            ),
        ]],
    },
    Family {
        model_types: &["granitemoe", "granitemoehybrid", "granitemoeshared"],
        rules: &[&[
            name(
                "block_sparse_moe.input_linear.weight",
                "block_sparse_moe.experts.gate_up_proj",
            ),
            name(
                "block_sparse_moe.output_linear.weight",
                "block_sparse_moe.experts.down_proj",
            ),
            name(
                "block_sparse_moe.router.layer.weight",
                "block_sparse_moe.router.weight",
            ),
        ]],
    },
    Family {
        model_types: &["kimi_linear"],
        rules: &[
            BLOCK_SPARSE_EXPERTS,
            CONVOLUTIONS,
            FORGET_GATE,
            &[
                name("block_sparse_moe.gate", "mlp.gate"),
                name("block_sparse_moe.shared_experts", "mlp.shared_experts"),
            ],
        ],
    },
    Family {
        model_types: &["bailing_hybrid"],
        rules: &[
            EXPERTS,
            CONVOLUTIONS,
            &[
                name("^model.word_embeddings", "^model.embed_tokens"),
                name("attention.f_proj", "attention.forget_gate.f_proj"),
                name("attention.dt_bias", "attention.forget_gate.dt_bias"),
                name("attention.A_log", "attention.forget_gate.A_log"),
                name("attention.dense", "attention.o_proj"),
                name("attention", "self_attn"),
                name("mlp.gate.expert_bias", "mlp.gate.e_score_correction_bias"),
            ],
        ],
    },
    Family {
        model_types: &["deepseek_v4"],
        rules: &[
            &[
                converted(
                    &["ffn.experts.#.w1.weight", "ffn.experts.#.w3.weight"],
                    &["mlp.experts.gate_up_proj"],
                    FUSED,
                ),
                converted(
                    &["ffn.experts.#.w2.weight"],
                    &["mlp.experts.down_proj"],
                    STACKED,
                ),
                name("^embed", "^model.embed_tokens"),
                name("^layers", "^model.layers"),
                name("^norm", "^model.norm"),
                name("^head", "^lm_head"),
                name("^hc_head_fn", "^model.hc_head.hc_fn"),
                name("^hc_head_base", "^model.hc_head.hc_base"),
                name("^hc_head_scale", "^model.hc_head.hc_scale"),
                name("attn.indexer.compressor", "attn.compressor.indexer"),
                name("attn.indexer.wq_b", "attn.compressor.indexer.q_b_proj"),
                name(
                    "attn.indexer.weights_proj",
                    "attn.compressor.indexer.scorer.weights_proj",
                ),
                name("indexer.norm", "indexer.kv_norm"),
                name("compressor.norm", "compressor.kv_norm"),
                name("ape", "position_bias"),
                name("attn_norm", "input_layernorm"),
                name("ffn_norm", "post_attention_layernorm"),
                name("attn.attn_sink", "attn.sinks"),
                name("wq_a", "q_a_proj"),
                name("attn.wq_b", "attn.q_b_proj"),
                name("wkv", "kv_proj"),
                name("wgate", "gate_proj"),
                name("wo_a", "o_a_proj"),
                name("wo_b", "o_b_proj"),
                name("attn.q_norm", "attn.q_a_norm"),
                name("ffn.gate.bias", "ffn.gate.e_score_correction_bias"),
                name("shared_experts.w1", "shared_experts.gate_proj"),
                name("shared_experts.w2", "shared_experts.down_proj"),
                name("shared_experts.w3", "shared_experts.up_proj"),
                name("attn", "self_attn"),
                name("ffn", "mlp"),
            ],
            HYPER_CONNECTIONS,
        ],
    },
    Family {
        model_types: &["glm5_next"],
        rules: &[EXPERTS, CONVOLUTIONS, FORGET_GATE, HYPER_CONNECTIONS],
    },
    Family {
        model_types: &["hrm_text"],
        rules: &[&[
            converted(
                &["mlp.gate_up_proj.weight"],
                &["mlp.gate_proj.weight", "mlp.up_proj.weight"],
                CHUNKED,
            ),
            converted(
                &["attn.gqkv_proj.weight"],
                &[
                    "self_attn.gate_proj.weight",
                    "self_attn.q_proj.weight",
                    "self_attn.k_proj.weight",
                    "self_attn.v_proj.weight",
                ],
                CHUNKED,
            ),
            name("attn.o_proj", "self_attn.o_proj"),
        ]],
    },
    Family {
        model_types: &["gpt_neox"],
        rules: &[&[name("^embed_out", "^lm_head")]],
    },
];

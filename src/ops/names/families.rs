//! What each family calls its tensors in the two layouts, by `model_type`; docs/NAMES.md has the same table. The facts are
//! those of transformers 5.23 (`conversion_mapping.py`) and of the checkpoints that it reads by them.

/// Models whose layouts differ in the same way.
#[derive(Debug)]
pub struct Family {
    /// Their `model_type` in config.json.
    pub model_types: &'static [&'static str],
    /// In this order from the released layout to that of transformers, and backwards.
    pub rules: &'static [&'static [Rule]],
}

/// How a part of the names differs: first what the authors released, then what transformers has. `#` is any number.
#[derive(Debug)]
pub enum Rule {
    /// Of the rules that begin with `^`, which match at the start of a name, the first that matches is applied; of
    /// the others each one that does.
    Renamed(&'static str, &'static str),
    Converted(Conversion),
}

/// Tensors that are others in the other layout. Patterns match at the end of the names of weights.
#[derive(Debug)]
pub struct Conversion {
    /// Each has a `#`, or none has.
    pub released: &'static [&'static str],
    pub transformers: &'static [&'static str],
    /// What makes those of transformers of the released ones, in order.
    pub steps: &'static [Step],
}

/// A step from the released layout to that of transformers, which can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The tensors of each number, one after the other along the first dimension.
    Concatenate,
    /// One tensor, parts of equal length along the first dimension.
    Chunk,
    /// Those of all numbers as entries of a new first dimension.
    Stack,
    /// Of the first tensors, this many, the rows of each head in the order of halves. config.json has the number of
    /// heads, `num_attention_heads` of `vision_config`.
    PermuteForRope(usize),
    /// The last two dimensions exchanged, where they are not already: hidden size and twice the intermediate size of the
    /// first tensor tell.
    TransposeExperts,
}

/// What is called `released` and `transformers`.
const fn name(released: &'static str, transformers: &'static str) -> Rule {
    Rule::Renamed(released, transformers)
}

const fn converted(
    released: &'static [&'static str],
    transformers: &'static [&'static str],
    steps: &'static [Step],
) -> Rule {
    Rule::Converted(Conversion {
        released,
        transformers,
        steps,
    })
}

/// Single experts, stacked; those of gate and up in one.
const STACKED: &[Step] = &[Step::Stack];
const FUSED: &[Step] = &[Step::Concatenate, Step::Stack];
const CONCATENATED: &[Step] = &[Step::Concatenate];
const CHUNKED: &[Step] = &[Step::Chunk];

const EXPERTS: &[Rule] = &[
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

const BLOCK_SPARSE_EXPERTS: &[Rule] = &[
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

const LANGUAGE_MODEL: &[Rule] = &[
    name("^language_model.lm_head", "^lm_head"),
    name("^language_model.model", "^model.language_model"),
];

/// Towers of CLIP and SigLIP, which were released a level deeper.
const VISION_MODEL: &[Rule] = &[
    name(
        "^vision_tower.vision_model.embeddings",
        "^model.vision_tower.embeddings",
    ),
    name(
        "^vision_tower.vision_model.pre_layrnorm",
        "^model.vision_tower.pre_layrnorm",
    ),
    name(
        "^vision_tower.vision_model.encoder",
        "^model.vision_tower.encoder",
    ),
    name(
        "^vision_tower.vision_model.post_layernorm",
        "^model.vision_tower.post_layernorm",
    ),
    name(
        "^vision_tower.vision_model.head",
        "^model.vision_tower.head",
    ),
];

const VISION_TOWER: &[Rule] = &[
    name("^vision_tower", "^model.vision_tower"),
    name("^multi_modal_projector", "^model.multi_modal_projector"),
];

const AUDIO_TOWER: &[Rule] = &[
    name("^audio_tower", "^model.audio_tower"),
    name("^multi_modal_projector", "^model.multi_modal_projector"),
];

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

/// All families.
pub const FAMILIES: &[Family] = &[
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
    Family {
        model_types: &["aya_vision", "gemma3", "llava", "paligemma", "vipllava"],
        rules: &[LANGUAGE_MODEL, VISION_MODEL, VISION_TOWER],
    },
    Family {
        model_types: &["got_ocr2", "internvl", "mistral3"],
        rules: &[LANGUAGE_MODEL, VISION_TOWER],
    },
    Family {
        model_types: &["llava_next", "llava_next_video", "llava_onevision"],
        rules: &[
            LANGUAGE_MODEL,
            VISION_MODEL,
            VISION_TOWER,
            &[name("^image_newline", "^model.image_newline")],
        ],
    },
    Family {
        model_types: &["aria"],
        rules: &[
            LANGUAGE_MODEL,
            VISION_TOWER,
            &[
                name("mlp.experts.fc1.weight", "mlp.experts.gate_up_proj"),
                name("mlp.experts.fc2.weight", "mlp.experts.down_proj"),
            ],
        ],
    },
    Family {
        model_types: &["mllama"],
        rules: &[
            LANGUAGE_MODEL,
            &[
                name("^vision_model", "^model.vision_model"),
                name("^multi_modal_projector", "^model.multi_modal_projector"),
            ],
        ],
    },
    Family {
        model_types: &["fuyu"],
        rules: &[
            LANGUAGE_MODEL,
            &[name("^vision_embed_tokens", "^model.vision_embed_tokens")],
        ],
    },
    Family {
        model_types: &["emu3"],
        rules: &[&[
            name("^text_model.lm_head", "^lm_head"),
            name("^text_model.model", "^model.text_model"),
            name("^vqmodel", "^model.vqmodel"),
        ]],
    },
    Family {
        model_types: &["qwen2_5_vl", "qwen2_vl"],
        rules: &[&[
            name("^visual", "^model.visual"),
            name("^model.embed_tokens", "^model.language_model.embed_tokens"),
            name("^model.layers", "^model.language_model.layers"),
            name("^model.norm", "^model.language_model.norm"),
        ]],
    },
    Family {
        model_types: &["qwen3_vl_moe"],
        rules: &[&[converted(
            &["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
            &["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
            &[Step::TransposeExperts],
        )]],
    },
    Family {
        model_types: &[
            "audioflamingo3",
            "glmasr",
            "musicflamingo",
            "qwen2_audio",
            "voxtral",
        ],
        rules: &[LANGUAGE_MODEL, AUDIO_TOWER],
    },
    Family {
        model_types: &["granite_speech"],
        rules: &[
            LANGUAGE_MODEL,
            &[
                name("^encoder", "^model.encoder"),
                name("^projector", "^model.projector"),
            ],
        ],
    },
    Family {
        model_types: &["kimi_k25"],
        rules: &[
            EXPERTS,
            LANGUAGE_MODEL,
            &[
                converted(
                    &["wqkv.weight"],
                    &[
                        "attn.q_proj.weight",
                        "attn.k_proj.weight",
                        "attn.v_proj.weight",
                    ],
                    &[Step::Chunk, Step::PermuteForRope(2)],
                ),
                converted(
                    &["wqkv.bias"],
                    &["attn.q_proj.bias", "attn.k_proj.bias", "attn.v_proj.bias"],
                    &[Step::Chunk, Step::PermuteForRope(2)],
                ),
                name(
                    "^vision_tower.encoder.blocks.#.norm0",
                    "^model.vision_tower.layers.#.norm1",
                ),
                name(
                    "^vision_tower.encoder.blocks.#.norm1",
                    "^model.vision_tower.layers.#.norm2",
                ),
                name(
                    "^vision_tower.encoder.blocks.#.mlp.fc0",
                    "^model.vision_tower.layers.#.mlp.fc1",
                ),
                name(
                    "^vision_tower.encoder.blocks.#.mlp.fc1",
                    "^model.vision_tower.layers.#.mlp.fc2",
                ),
                name(
                    "^vision_tower.encoder.blocks.#.wo",
                    "^model.vision_tower.layers.#.attn.proj",
                ),
                name("^vision_tower.encoder.blocks", "^model.vision_tower.layers"),
                name(
                    "^vision_tower.encoder.final_layernorm",
                    "^model.vision_tower.final_layernorm",
                ),
                name(
                    "^vision_tower.patch_embed.pos_emb.weight",
                    "^model.vision_tower.patch_embed.pos_emb.position_embeddings",
                ),
                name(
                    "^vision_tower.patch_embed",
                    "^model.vision_tower.patch_embed",
                ),
                name("^mm_projector.proj.0", "^model.mm_projector.in_proj"),
                name("^mm_projector.proj.2", "^model.mm_projector.out_proj"),
                name("^mm_projector.pre_norm", "^model.mm_projector.pre_norm"),
            ],
        ],
    },
    Family {
        model_types: &["minimax_m3_vl"],
        rules: &[
            BLOCK_SPARSE_EXPERTS,
            LANGUAGE_MODEL,
            &[
                converted(
                    &["gate_proj.weight", "up_proj.weight"],
                    &["gate_up_proj.weight"],
                    CONCATENATED,
                ),
                name(
                    "^vision_tower.vision_model.embeddings.patch_embedding",
                    "^model.vision_tower.embeddings.proj",
                ),
                name(
                    "^vision_tower.vision_model.encoder.layers",
                    "^model.vision_tower.layers",
                ),
                name(
                    "^vision_tower.vision_model.pre_layrnorm",
                    "^model.vision_tower.pre_layrnorm",
                ),
                name(
                    "^multi_modal_projector.linear_1",
                    "^model.multi_modal_projector.linear_1",
                ),
                name(
                    "^multi_modal_projector.linear_2",
                    "^model.multi_modal_projector.linear_2",
                ),
                name(
                    "^patch_merge_mlp.linear_1",
                    "^model.multi_modal_projector.merge_linear_1",
                ),
                name(
                    "^patch_merge_mlp.linear_2",
                    "^model.multi_modal_projector.merge_linear_2",
                ),
                name("block_sparse_moe.shared_experts", "mlp.shared_experts"),
                name("block_sparse_moe.gate", "mlp.gate"),
                name(
                    "block_sparse_moe.e_score_correction_bias",
                    "mlp.gate.e_score_correction_bias",
                ),
                name("self_attn.index_q_proj", "self_attn.indexer.q_proj"),
                name("self_attn.index_k_proj", "self_attn.indexer.k_proj"),
                name("self_attn.index_q_norm", "self_attn.indexer.q_norm"),
                name("self_attn.index_k_norm", "self_attn.indexer.k_norm"),
            ],
        ],
    },
    Family {
        model_types: SAME,
        rules: &[],
    },
];

/// Models that transformers has as they were released.
const SAME: &[&str] = &[
    "bamba",
    "bloom",
    "cohere",
    "cohere2",
    "exaone4",
    "falcon",
    "falcon_h1",
    "falcon_mamba",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4",
    "glm",
    "glm4",
    "glm4v",
    "gpt2",
    "gpt_oss",
    "granite",
    "helium",
    "idefics3",
    "jetmoe",
    "lfm2",
    "llama",
    "mamba",
    "mamba2",
    "ministral3",
    "mistral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_5",
    "qwen3_5_text",
    "qwen3_vl",
    "seed_oss",
    "smollm3",
    "smolvlm",
    "stablelm",
    "starcoder2",
    "zamba2",
];

//! Models that see or hear, too.

use crate::ops::names::families::rule::{Family, Rule, Step, converted, name};
use crate::ops::names::families::shared::{BLOCK_SPARSE_EXPERTS, CONCATENATED, EXPERTS};

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

pub(super) const FAMILIES: &[Family] = &[
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
];

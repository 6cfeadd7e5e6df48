//! How GGUF names the tensors of an architecture, and what differs in their values from the layout of
//! Hugging Face.
//!
//! Source: `convert_hf_to_gguf.py` of llama.cpp b11434. The tables hold in both directions: a name of either
//! side finds the rule, and a rule gives the names of the other side.
//!
//! In names, `{l}` is the number of a layer and `{e}` that of an expert.

mod deepseek;
mod gemma;
mod gpt_oss;
mod llama;
mod qwen;
mod qwen_next;
mod rule;

pub use rule::{Architecture, Change, Found, Heads, Suffix, TensorRule};

/// Every architecture that is known.
pub static ARCHITECTURES: [&Architecture; 10] = [
    &llama::LLAMA,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA3,
    &qwen_next::QWEN3_NEXT,
    &qwen_next::QWEN35,
    &qwen_next::QWEN35_MOE,
    &deepseek::DEEPSEEK2,
    &gpt_oss::GPT_OSS,
];

impl Architecture {
    /// The architecture that GGUF calls `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        let mut all = ARCHITECTURES.into_iter();
        all.find(|architecture| architecture.name == name)
    }

    /// The architecture of a class of models, such as `LlamaForCausalLM`.
    pub fn of_class(class: &str) -> Option<&'static Self> {
        let mut all = ARCHITECTURES.into_iter();
        all.find(|architecture| architecture.classes.contains(&class))
    }
}

/// `name` as the rules have it: multimodal models have their language model's tensors in a module of its own.
pub fn without_module(name: &str) -> String {
    name.replace("language_model.", "")
}

/// Whether the tensor that Hugging Face calls `name` is none of the language model: the converter leaves it
/// out.
pub fn is_left_out(name: &str) -> bool {
    const PREFIXES: [&str; 10] = [
        "mlp",
        "vit.",
        "vpm.",
        "siglip2.",
        "conformer.",
        "merger.",
        "resampler.",
        "sound_encoder.",
        "sound_projection.",
        "speech_embeddings.",
    ];
    const PARTS: [&str; 17] = [
        "visual.",
        "vision.",
        "audio.",
        "talker.",
        "vision_",
        "audio_",
        "token2wav.",
        "code2wav.",
        "projector.",
        "pre_mm_projector_norm",
        "image_newline",
        "view_seperator",
        "patch_embed",
        "patch_merger.",
        "patch_merge_mlp.",
        "model.connector.",
        "patch_embedding",
    ];
    const ENDS: [&str; 3] = [
        ".attention.masked_bias",
        ".attention.bias",
        ".rotary_emb.inv_freq",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || PARTS.iter().any(|part| name.contains(part))
        || ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of Hugging Face and of GGUF, of `architecture`.
    fn assert_pairs(architecture: &str, pairs: &[(&str, &str)]) {
        let architecture = Architecture::named(architecture).unwrap();
        for (hf, gguf) in pairs {
            let found = architecture.of_hf(hf).expect(hf);
            assert!(
                found.gguf_names().any(|name| name == *gguf),
                "{hf}: {found:?}"
            );
            let mut back = architecture.of_gguf(gguf);
            assert!(
                back.any(|back| back.with_expert(found.expert).hf_name() == *hf),
                "{gguf}"
            );
        }
    }

    #[test]
    fn names_go_both_ways() {
        assert_pairs(
            "llama",
            &[
                ("model.embed_tokens.weight", "token_embd.weight"),
                ("lm_head.weight", "output.weight"),
                ("model.norm.weight", "output_norm.weight"),
                (
                    "model.layers.12.self_attn.q_proj.weight",
                    "blk.12.attn_q.weight",
                ),
                (
                    "model.layers.12.self_attn.q_proj.bias",
                    "blk.12.attn_q.bias",
                ),
                (
                    "model.layers.0.post_attention_layernorm.weight",
                    "blk.0.ffn_norm.weight",
                ),
                (
                    "model.layers.3.block_sparse_moe.experts.7.w2.weight",
                    "blk.3.ffn_down_exps.weight",
                ),
                (
                    "model.layers.3.block_sparse_moe.gate.weight",
                    "blk.3.ffn_gate_inp.weight",
                ),
            ],
        );
        assert_pairs(
            "qwen3moe",
            &[
                (
                    "model.layers.1.self_attn.q_norm.weight",
                    "blk.1.attn_q_norm.weight",
                ),
                (
                    "model.layers.1.mlp.gate.weight",
                    "blk.1.ffn_gate_inp.weight",
                ),
                (
                    "model.layers.1.mlp.experts.gate_up_proj",
                    "blk.1.ffn_up_exps.weight",
                ),
                (
                    "model.layers.1.mlp.experts.0.up_proj.weight",
                    "blk.1.ffn_up_exps.weight",
                ),
            ],
        );
        assert_pairs(
            "gemma3",
            &[
                (
                    "model.layers.1.post_attention_layernorm.weight",
                    "blk.1.post_attention_norm.weight",
                ),
                (
                    "model.layers.1.pre_feedforward_layernorm.weight",
                    "blk.1.ffn_norm.weight",
                ),
            ],
        );
        assert_pairs(
            "qwen35",
            &[
                ("model.layers.2.linear_attn.A_log", "blk.2.ssm_a"),
                ("model.layers.2.linear_attn.dt_bias", "blk.2.ssm_dt.bias"),
                (
                    "model.layers.2.linear_attn.conv1d.weight",
                    "blk.2.ssm_conv1d.weight",
                ),
            ],
        );
        assert_pairs(
            "deepseek2",
            &[
                (
                    "model.layers.4.self_attn.kv_b_proj.weight",
                    "blk.4.attn_k_b.weight",
                ),
                (
                    "model.layers.4.mlp.gate.e_score_correction_bias",
                    "blk.4.exp_probs_b.bias",
                ),
            ],
        );
        assert_pairs(
            "gpt-oss",
            &[("model.layers.4.self_attn.sinks", "blk.4.attn_sinks.weight")],
        );
    }

    #[test]
    fn names_that_are_alike_are_other_tensors() {
        let llama = Architecture::named("llama").unwrap();
        for name in [
            "model.layers.x.self_attn.q_proj.weight",
            "model.layers.1.self_attn.q_proj.scale",
            "model.layers.1.self_attn.q_proj",
            "model.layers.01.mlp.up_proj.weight",
            "model.layers.1.mlp.experts.gate_up_proj",
            "lm_head",
        ] {
            assert!(llama.of_hf(name).is_none(), "{name}");
        }
    }

    #[test]
    fn no_two_rules_of_an_architecture_have_one_name_of_hugging_face() {
        for architecture in ARCHITECTURES {
            let rules: Vec<_> = architecture.rules().collect();
            for (i, rule) in rules.iter().enumerate() {
                let is_same =
                    |other: &&&TensorRule| other.hf == rule.hf && other.suffix == rule.suffix;
                assert!(
                    !rules[..i].iter().any(|other| is_same(&other)),
                    "{}: {}",
                    architecture.name,
                    rule.hf
                );
            }
        }
    }
}

//! The metadata of a file, in the order of `convert_hf_to_gguf.py`.

mod general;
mod hparams;
mod keys;
mod model_card;
mod model_name;

pub(super) use hparams::Hparams;
pub(super) use keys::KeyWriter;

use serde_json::{Map, Value as Json};

use crate::error::Result;
use crate::ops::gguf::architecture::Architecture;
use crate::ops::gguf::files::Files;
use crate::ops::gguf::kind::GgufKind;
pub(super) use general::Parameters;

/// The keys in front of the tokenizer's.
///
/// # Errors
/// If config.json lacks something, or a file cannot be read.
pub(super) fn model_keys(
    keys: &mut KeyWriter,
    architecture: &Architecture,
    kind: GgufKind,
    (config, hparams): (&Map<String, Json>, &Hparams),
    files: Files,
    parameters: Parameters,
) -> Result<()> {
    general::keys(keys, config, files, parameters)?;
    common(keys, kind, hparams)?;
    of_architecture(keys, architecture, hparams)?;
    keys.u32("general.quantization_version", 2);
    Ok(())
}

/// What is the same for all architectures.
fn common(keys: &mut KeyWriter, kind: GgufKind, hparams: &Hparams) -> Result<()> {
    keys.u32(".block_count", hparams.need("num_hidden_layers")?);
    keys.u32_of(".context_length", hparams.get("max_position_embeddings"));
    keys.u32_of(".embedding_length", hparams.get("hidden_size"));
    keys.u32_of(".feed_forward_length", hparams.get("intermediate_size"));
    keys.u32_of(".attention.head_count", hparams.get("num_attention_heads"));
    keys.u32_of(
        ".attention.head_count_kv",
        hparams.get("num_key_value_heads"),
    );
    if hparams.get("is_causal") == Some(&Json::Bool(false)) {
        keys.bool(".attention.causal", false);
    }
    rope(keys, hparams)?;
    keys.f32_of(
        ".attention.layer_norm_rms_epsilon",
        hparams.first(&["rms_norm_eps", "norm_eps"]),
    );
    keys.f32_of(
        ".attention.layer_norm_epsilon",
        hparams.first(&["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"]),
    );
    keys.u32_of(
        ".expert_count",
        hparams.first(&["num_local_experts", "num_experts", "n_routed_experts"]),
    );
    keys.u32_of(
        ".expert_used_count",
        hparams.first(&[
            "num_experts_per_tok",
            "num_experts_per_token",
            "top_k_experts",
        ]),
    );
    keys.u32_of(".expert_group_count", hparams.get("n_group"));
    keys.u32_of(".expert_group_used_count", hparams.get("topk_group"));
    if let Some(function) = hparams.first(&["score_function", "scoring_func", "score_func"]) {
        match function.as_str() {
            Some("softmax") => keys.u32(".expert_gating_func", 1),
            Some("sigmoid") => keys.u32(".expert_gating_func", 2),
            _ => {
                let problem = format!("{function} is none of softmax and sigmoid");
                return Err(hparams.bad("scoring_func", &problem));
            }
        }
    }
    keys.u32_of(".attention.key_length", hparams.get("head_dim"));
    keys.u32_of(".attention.value_length", hparams.get("head_dim"));
    keys.u32("general.file_type", kind.file_type().into());
    Ok(())
}

fn rope(keys: &mut KeyWriter, hparams: &Hparams) -> Result<()> {
    let rope = hparams.full_rope();
    let factor = rope.get("factor").filter(|factor| factor.is_number());
    match (rope.get("rope_type").and_then(Json::as_str), factor) {
        (Some("linear"), Some(_)) => {
            keys.string(".rope.scaling.type", "linear");
            keys.f32_of(".rope.scaling.factor", factor);
        }
        (Some("yarn"), Some(_)) => {
            keys.string(".rope.scaling.type", "yarn");
            keys.f32_of(".rope.scaling.factor", factor);
            let original = rope.get("original_max_position_embeddings");
            if original.and_then(Json::as_u64).is_none() {
                return Err(hparams.missing("original_max_position_embeddings"));
            }
            keys.u32_of(".rope.scaling.original_context_length", original);
            keys.f32_of(
                ".rope.scaling.yarn_ext_factor",
                rope.get("extrapolation_factor"),
            );
            let attention = rope.get("attention_factor").or(rope.get("attn_factor"));
            keys.f32_of(".rope.scaling.yarn_attn_factor", attention);
            keys.f32_of(".rope.scaling.yarn_beta_fast", rope.get("beta_fast"));
            keys.f32_of(".rope.scaling.yarn_beta_slow", rope.get("beta_slow"));
        }
        (Some("su" | "longrope"), _) => keys.string(".rope.scaling.type", "longrope"),
        _ => {}
    }
    if let Some(Json::Array(sections)) = hparams.rope().get("mrope_section") {
        let sections = sections
            .iter()
            .map(|n| n.as_i64().unwrap_or_default() as i32);
        let sections: Vec<i32> = sections.chain(std::iter::repeat(0)).take(4).collect();
        keys.numbers(".rope.dimension_sections", &sections);
    }
    keys.f32_of(".rope.freq_base", rope.get("rope_theta"));
    let sliding = hparams.rope().get("sliding_attention");
    let sliding = sliding.and_then(|sliding| sliding.get("rope_theta"));
    keys.f32_of(".rope.freq_base_swa", sliding);
    Ok(())
}

fn of_architecture(
    keys: &mut KeyWriter,
    architecture: &Architecture,
    hparams: &Hparams,
) -> Result<()> {
    match architecture.name {
        "llama" => {
            keys.u32(".vocab_size", hparams.need("vocab_size")?);
            let head = match hparams.whole("head_dim") {
                Some(head) => head,
                None => hparams.need("hidden_size")? / hparams.need("num_attention_heads")?,
            };
            keys.u32(".rope.dimension_count", head);
        }
        "qwen3moe" => {
            keys.u32_of(
                ".expert_feed_forward_length",
                hparams.get("moe_intermediate_size"),
            );
            keys.u32_of(
                ".expert_shared_feed_forward_length",
                hparams.get("shared_expert_intermediate_size"),
            );
        }
        "gemma3" => {
            if hparams.get("attn_logit_softcapping").is_some() {
                let problem = "Gemma 3 has none in GGUF";
                return Err(hparams.bad("attn_logit_softcapping", problem));
            }
            let cap = hparams.get("final_logit_softcapping");
            let cap = cap.filter(|cap| cap.as_f64() != Some(0.0));
            keys.f32_of(".final_logit_softcapping", cap);
            if hparams.whole("sliding_window_pattern") != Some(1) {
                keys.u32(".attention.sliding_window", hparams.need("sliding_window")?);
            }
        }
        _ => {}
    }
    Ok(())
}

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
    common(keys, architecture, kind, hparams)?;
    of_architecture(keys, architecture, hparams)?;
    keys.u32("general.quantization_version", 2);
    Ok(())
}

/// What is the same for all architectures.
fn common(
    keys: &mut KeyWriter,
    architecture: &Architecture,
    kind: GgufKind,
    hparams: &Hparams,
) -> Result<()> {
    keys.u32(".block_count", hparams.layers()?);
    keys.u32_of(".context_length", hparams.get("max_position_embeddings"));
    keys.u32_of(".embedding_length", hparams.get("hidden_size"));
    keys.u32_of(".feed_forward_length", hparams.get("intermediate_size"));
    keys.u32_of(".attention.head_count", hparams.get("num_attention_heads"));
    keys.u32_of(
        ".attention.head_count_kv",
        hparams.get("num_key_value_heads"),
    );
    if architecture.name == "deepseek2" {
        // Latent attention has one key and value for all heads.
        keys.u32(".attention.head_count_kv", 1);
    }
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
        (Some(kind @ ("su" | "longrope")), _) => {
            // The converter writes the kind and no factors, and llama.cpp would turn positions by other angles.
            let problem = format!("{kind} has factors for which GGUF has no place here");
            return Err(hparams.bad("rope_scaling", &problem));
        }
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
        "qwen3moe" => experts(keys, hparams),
        "qwen3next" | "qwen35" | "qwen35moe" => {
            experts(keys, hparams);
            linear_attention(keys, architecture, hparams)?;
        }
        "gpt-oss" => {
            keys.u32(".attention.sliding_window", hparams.need("sliding_window")?);
            let length = hparams.need("intermediate_size")?;
            keys.u32(".expert_feed_forward_length", length);
        }
        "deepseek2" => latent_attention(keys, hparams)?,
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

fn experts(keys: &mut KeyWriter, hparams: &Hparams) {
    keys.u32_of(
        ".expert_feed_forward_length",
        hparams.get("moe_intermediate_size"),
    );
    let shared = hparams.get("shared_expert_intermediate_size");
    keys.u32_of(".expert_shared_feed_forward_length", shared);
}

/// Qwen3-Next and Qwen3.5.
fn linear_attention(
    keys: &mut KeyWriter,
    architecture: &Architecture,
    hparams: &Hparams,
) -> Result<()> {
    if hparams.nextn() > 0 {
        keys.u32(".nextn_predict_layers", hparams.nextn());
    }
    keys.u32(".ssm.conv_kernel", hparams.need("linear_conv_kernel_dim")?);
    keys.u32(".ssm.state_size", hparams.need("linear_key_head_dim")?);
    keys.u32(".ssm.group_count", hparams.need("linear_num_key_heads")?);
    let heads = hparams.need("linear_num_value_heads")?;
    keys.u32(".ssm.time_step_rank", heads);
    let inner = heads.saturating_mul(hparams.need("linear_value_head_dim")?);
    keys.u32(".ssm.inner_size", inner);
    if let Some(Json::Array(types)) = hparams.get("layer_types") {
        if types.len() as u64 != hparams.need("num_hidden_layers")? {
            let problem = format!("it has {} entries, another number than layers", types.len());
            return Err(hparams.bad("layer_types", &problem));
        }
        let is_linear = |kind: &Json| kind.as_str() == Some("linear_attention");
        let mut recurrent: Vec<bool> = types.iter().map(is_linear).collect();
        recurrent.resize(hparams.layers()? as usize, false);
        keys.numbers(".attention.recurrent_layers", &recurrent);
    }
    let interval = hparams.whole("full_attention_interval").unwrap_or(4);
    keys.u32(".full_attention_interval", interval);
    let head = match hparams.whole("head_dim") {
        Some(head) => head,
        None => hparams.need("hidden_size")? / hparams.need("num_attention_heads")?,
    };
    let share = hparams
        .rope()
        .get("partial_rotary_factor")
        .and_then(Json::as_f64);
    let rotated = (head as f64 * share.unwrap_or(0.25)) as u64;
    keys.u32(".rope.dimension_count", rotated);
    if architecture.name != "qwen3next" && !hparams.rope().contains_key("mrope_section") {
        keys.numbers(".rope.dimension_sections", &[11i32, 11, 10, 0]);
    }
    Ok(())
}

/// DeepSeek V2 and V3.
fn latent_attention(keys: &mut KeyWriter, hparams: &Hparams) -> Result<()> {
    let has_experts = hparams.get("n_routed_experts").is_some();
    let dense = match hparams.whole("first_k_dense_replace") {
        Some(dense) => dense,
        None if has_experts => 0,
        None => hparams.need("num_hidden_layers")?,
    };
    keys.u32(".leading_dense_block_count", dense);
    keys.u32(".vocab_size", hparams.need("vocab_size")?);
    keys.u32_of(".attention.q_lora_rank", hparams.get("q_lora_rank"));
    let rank = hparams.whole("kv_lora_rank").unwrap_or(512);
    let rotated = hparams.need("qk_rope_head_dim")?;
    keys.u32(".attention.kv_lora_rank", rank);
    keys.u32(".attention.key_length", rank.saturating_add(rotated));
    keys.u32(".attention.value_length", rank);
    let key = hparams.need("qk_nope_head_dim")?.saturating_add(rotated);
    keys.u32(".attention.key_length_mla", key);
    keys.u32(".attention.value_length_mla", hparams.need("v_head_dim")?);
    let length = hparams.first(&["moe_intermediate_size", "intermediate_size"]);
    keys.u32_of(".expert_feed_forward_length", length);
    keys.u32_of(".expert_count", hparams.get("n_routed_experts"));
    keys.u32(
        ".expert_shared_count",
        hparams.whole("n_shared_experts").unwrap_or(0),
    );
    keys.f32_of(
        ".expert_weights_scale",
        hparams.get("routed_scaling_factor"),
    );
    if hparams.get("norm_topk_prob") == Some(&Json::Bool(true)) {
        keys.bool(".expert_weights_norm", true);
    }
    keys.u32(".rope.dimension_count", rotated);
    if let Some(scale) = hparams.rope().get("mscale_all_dim").and_then(Json::as_f64) {
        keys.f32(".rope.scaling.yarn_log_multiplier", 0.1 * scale);
    }
    Ok(())
}

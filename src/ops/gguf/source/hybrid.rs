//! config.json of models in which layers of linear attention are among those of attention.

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::ops::gguf::source::forms::LinearHeads;
use crate::ops::gguf::source::metadata::Metadata;

/// Their architectures, which rotate a part of each head.
pub(super) const HYBRID: [&str; 3] = ["qwen3next", "qwen35", "qwen35moe"];

type Object = Map<String, Value>;

/// What they have in common beyond what `common` says.
fn hybrid(metadata: Metadata, common: &Object) -> Result<Object> {
    let heads = LinearHeads::read(metadata)?;
    let layers = common.get("num_hidden_layers").and_then(Value::as_u64);
    let interval = metadata
        .find_number(".full_attention_interval")?
        .unwrap_or(4);
    if interval == 0 {
        return Err(metadata.bad(".full_attention_interval", "is 0"));
    }
    let types = (0..layers.unwrap_or_default()).map(|layer| {
        let decay = format!("blk.{layer}.ssm_a");
        match metadata.model.types.contains_key(&*decay) {
            true => "linear_attention",
            false => "full_attention",
        }
    });
    let mut config = Object::new();
    config.extend([
        (
            "linear_conv_kernel_dim".to_owned(),
            metadata.number(".ssm.conv_kernel")?.into(),
        ),
        ("linear_key_head_dim".to_owned(), heads.key_width.into()),
        ("linear_num_key_heads".to_owned(), heads.key_heads.into()),
        ("linear_value_head_dim".to_owned(), heads.value_width.into()),
        (
            "linear_num_value_heads".to_owned(),
            heads.value_heads.into(),
        ),
        ("full_attention_interval".to_owned(), interval.into()),
        ("layer_types".to_owned(), types.collect::<Vec<_>>().into()),
    ]);
    Ok(config)
}

/// The share of each head that is rotated.
fn rotated(metadata: Metadata, common: &Object) -> Result<f64> {
    let head_dim = common
        .get("head_dim")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    let rotated = metadata.find_number(".rope.dimension_count")?;
    Ok(rotated.unwrap_or(head_dim) as f64 / head_dim.max(1) as f64)
}

fn experts(metadata: Metadata, config: &mut Object) -> Result<()> {
    let width = metadata.number(".expert_feed_forward_length")?;
    let shared = metadata.find_number(".expert_shared_feed_forward_length")?;
    config.extend([
        (
            "num_experts".to_owned(),
            metadata.number(".expert_count")?.into(),
        ),
        (
            "num_experts_per_tok".to_owned(),
            metadata.number(".expert_used_count")?.into(),
        ),
        ("moe_intermediate_size".to_owned(), width.into()),
        (
            "shared_expert_intermediate_size".to_owned(),
            shared.unwrap_or(width).into(),
        ),
    ]);
    Ok(())
}

/// Qwen3-Next.
pub(super) fn qwen3_next(metadata: Metadata, common: &Object) -> Result<Object> {
    let mut config = hybrid(metadata, common)?;
    experts(metadata, &mut config)?;
    config.extend([
        ("architectures".to_owned(), json!(["Qwen3NextForCausalLM"])),
        ("model_type".to_owned(), "qwen3_next".into()),
        (
            "partial_rotary_factor".to_owned(),
            rotated(metadata, common)?.into(),
        ),
        // llama.cpp computes no other models of this architecture.
        ("norm_topk_prob".to_owned(), true.into()),
        ("decoder_sparse_step".to_owned(), 1.into()),
        ("mlp_only_layers".to_owned(), json!([])),
    ]);
    Ok(config)
}

/// Qwen3.5, the language model alone.
pub(super) fn qwen35(metadata: Metadata, common: &Object) -> Result<Object> {
    let mut config = hybrid(metadata, common)?;
    let sections = metadata.get(".rope.dimension_sections");
    let sections = sections.and_then(|value| value.as_array()?.numbers());
    let Some(sections) = sections.filter(|sections| sections.len() <= 4) else {
        let problem = "is missing, or no array of up to four numbers";
        return Err(metadata.bad(".rope.dimension_sections", problem));
    };
    let sections = sections.values().filter_map(|value| value.as_u64());
    let sections: Vec<u64> = sections.filter(|section| *section > 0).collect();
    let theta = common.get("rope_theta").cloned().unwrap_or_default();
    config.extend([
        ("architectures".to_owned(), json!(["Qwen3_5ForCausalLM"])),
        ("model_type".to_owned(), "qwen3_5_text".into()),
        (
            "rope_parameters".to_owned(),
            json!({
                "rope_type": "default",
                "rope_theta": theta,
                "mrope_section": sections,
                "mrope_interleaved": true,
                "partial_rotary_factor": rotated(metadata, common)?,
            }),
        ),
    ]);
    Ok(config)
}

/// Qwen3.5 with experts, the language model alone.
pub(super) fn qwen35_moe(metadata: Metadata, common: &Object) -> Result<Object> {
    let mut config = qwen35(metadata, common)?;
    experts(metadata, &mut config)?;
    config.extend([
        ("architectures".to_owned(), json!(["Qwen3_5MoeForCausalLM"])),
        ("model_type".to_owned(), "qwen3_5_moe_text".into()),
    ]);
    Ok(config)
}

//! config.json of DeepSeek V2 and V3.

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::ops::gguf::source::metadata::{Metadata, shortest};

type Object = Map<String, Value>;

/// Whether experts are chosen by sigmoids, as in V3. Where metadata does not say it, the biases of the choice
/// do: the converter writes no key for what `transformers` saves of V3, which leaves out `scoring_func`.
fn has_sigmoids(metadata: Metadata) -> Result<bool> {
    const KEY: &str = ".expert_gating_func";
    let mut names = metadata.model.types.keys();
    let has_biases = names.any(|name| name.ends_with(".exp_probs_b.bias"));
    match metadata.find_number(KEY)? {
        Some(SIGMOID) => Ok(true),
        Some(_) if has_biases => {
            let problem = "is no sigmoid, but experts have biases (exp_probs_b.bias)";
            Err(metadata.bad(KEY, problem))
        }
        Some(_) => Ok(false),
        None => Ok(has_biases),
    }
}

/// How experts are weighted, by its number in metadata.
const SIGMOID: u64 = 2;

/// What `common` does not say, or says otherwise.
///
/// # Errors
/// If metadata lacks something.
pub(super) fn config(metadata: Metadata, common: &Object) -> Result<Object> {
    let rotated = metadata.number(".rope.dimension_count")?;
    // Older files, which do not have keys and values cut, call the widths of heads so.
    let (key_length, value_length) = match metadata.find_number(".attention.key_length_mla")? {
        Some(_) => (".attention.key_length_mla", ".attention.value_length_mla"),
        None => (".attention.key_length", ".attention.value_length"),
    };
    let key = metadata.number(key_length)?;
    let Some(plain) = key.checked_sub(rotated) else {
        return Err(metadata.bad(key_length, "is less than rope.dimension_count"));
    };
    let is_v3 = has_sigmoids(metadata)?;
    let groups = metadata.find_number(".expert_group_count")?.unwrap_or(1);
    let used = metadata
        .find_number(".expert_group_used_count")?
        .unwrap_or(1);
    let rank = metadata.find_number(".attention.q_lora_rank")?;
    let scale = metadata.find_float(".expert_weights_scale")?;
    let method = match (is_v3, groups) {
        (true, _) => "noaux_tc",
        (false, 0 | 1) => "greedy",
        (false, _) => "group_limited_greedy",
    };
    let (class, model_type, scoring) = match is_v3 {
        true => ("DeepseekV3ForCausalLM", "deepseek_v3", "sigmoid"),
        false => ("DeepseekV2ForCausalLM", "deepseek_v2", "softmax"),
    };
    let mut scaling = common.get("rope_scaling").cloned().unwrap_or_default();
    if let (true, Some(log)) = (
        scaling.is_object(),
        metadata.find_float(".rope.scaling.yarn_log_multiplier")?,
    ) {
        // The converter stores a tenth of mscale_all_dim, which all releases have equal to mscale.
        let all = shortest(log * 10.0);
        scaling["mscale"] = all.clone();
        scaling["mscale_all_dim"] = all;
    }
    let number = |key: &str| metadata.number(key).map(Value::from);
    let heads = common
        .get("num_attention_heads")
        .cloned()
        .unwrap_or_default();
    let mut config = Object::new();
    config.extend([
        ("architectures".to_owned(), json!([class])),
        ("model_type".to_owned(), model_type.into()),
        ("num_key_value_heads".to_owned(), heads),
        ("head_dim".to_owned(), rotated.into()),
        ("rope_scaling".to_owned(), scaling),
        (
            "q_lora_rank".to_owned(),
            rank.map_or(Value::Null, Value::from),
        ),
        (
            "kv_lora_rank".to_owned(),
            number(".attention.kv_lora_rank")?,
        ),
        ("qk_rope_head_dim".to_owned(), rotated.into()),
        ("qk_nope_head_dim".to_owned(), plain.into()),
        ("v_head_dim".to_owned(), number(value_length)?),
        (
            "first_k_dense_replace".to_owned(),
            number(".leading_dense_block_count")?,
        ),
        ("moe_layer_freq".to_owned(), 1.into()),
        ("n_routed_experts".to_owned(), number(".expert_count")?),
        (
            "num_experts_per_tok".to_owned(),
            number(".expert_used_count")?,
        ),
        (
            "n_shared_experts".to_owned(),
            number(".expert_shared_count")?,
        ),
        (
            "moe_intermediate_size".to_owned(),
            number(".expert_feed_forward_length")?,
        ),
        ("n_group".to_owned(), groups.into()),
        ("topk_group".to_owned(), used.into()),
        ("topk_method".to_owned(), method.into()),
        ("scoring_func".to_owned(), scoring.into()),
        (
            "norm_topk_prob".to_owned(),
            metadata
                .find_bool(".expert_weights_norm")?
                .unwrap_or(false)
                .into(),
        ),
        (
            "routed_scaling_factor".to_owned(),
            shortest(scale.unwrap_or(1.0)),
        ),
    ]);
    Ok(config)
}

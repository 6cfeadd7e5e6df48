//! config.json and generation_config.json, made of metadata.
//!
//! | architecture | `model_type` |
//! |---|---|
//! | llama; with experts | llama; mixtral |
//! | qwen2, qwen3, qwen3moe | qwen2, qwen3, qwen3_moe |
//! | gemma3 | gemma3_text |
//! | qwen3next, qwen35, qwen35moe | qwen3_next, qwen3_5_text, qwen3_5_moe_text |
//! | deepseek2 | deepseek_v2; deepseek_v3 where experts are chosen by sigmoids |
//! | gpt-oss | gpt_oss |

use serde_json::{Map, Value, json};

use crate::catalog::{Opened, Tensor};
use crate::error::Result;
use crate::kernels::lanes::Precision;
use crate::ops::gguf::source::metadata::{Metadata, shortest};
use crate::ops::gguf::source::rope::rope_scaling;
use crate::ops::gguf::source::tensors::first_predictor;
use crate::ops::gguf::source::{deepseek, hybrid};

type Object = Map<String, Value>;

/// The most layers.
const MAX_LAYERS: u64 = 65_536;

const EMBEDDING: &str = "model.embed_tokens.weight";

/// The keys of tokens, in config.json and in metadata.
const TOKENS: [(&str, &str); 3] = [
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
    ("pad_token_id", "tokenizer.ggml.padding_token_id"),
];

/// config.json of a model with these tensors.
///
/// # Errors
/// If metadata lacks something, or describes what no such model can be.
pub(super) fn config(metadata: Metadata, opened: &Opened) -> Result<Object> {
    let mut config = common(metadata, opened)?;
    let own = match metadata.architecture.name {
        "llama" => llama(metadata, opened)?,
        "qwen2" => qwen2(),
        "qwen3" => qwen3(opened),
        "qwen3moe" => qwen3_moe(metadata, opened)?,
        "gemma3" => gemma3(metadata, &config)?,
        "qwen3next" => hybrid::qwen3_next(metadata, &config)?,
        "qwen35" => hybrid::qwen35(metadata, &config)?,
        "qwen35moe" => hybrid::qwen35_moe(metadata, &config)?,
        "gpt-oss" => gpt_oss(metadata, &config)?,
        "deepseek2" => deepseek::config(metadata, &config)?,
        other => unreachable!("{other} is among those that are read"),
    };
    if own.contains_key("rope_parameters") {
        config.retain(|key, _| key != "rope_theta" && key != "rope_scaling");
    }
    // What an architecture says itself takes the place of what all have.
    config.extend(own);
    Ok(config)
}

/// generation_config.json: which tokens begin and end a text.
///
/// # Errors
/// If metadata has something else than numbers for them.
pub(super) fn generation_config(metadata: Metadata) -> Result<Object> {
    let mut config = tokens(metadata)?;
    let eot = metadata.find_number("tokenizer.ggml.eot_token_id")?;
    if let (Some(eot), Some(eos)) = (eot, config.get("eos_token_id").and_then(Value::as_u64))
        && eot != eos
    {
        config.insert("eos_token_id".to_owned(), json!([eos, eot]));
    }
    Ok(config)
}

fn tokens(metadata: Metadata) -> Result<Object> {
    let mut found = Object::new();
    for (key, gguf) in TOKENS {
        if let Some(id) = metadata.find_number(gguf)? {
            found.insert(key.to_owned(), id.into());
        }
    }
    Ok(found)
}

/// What every architecture has.
fn common(metadata: Metadata, opened: &Opened) -> Result<Object> {
    let heads = metadata.number(".attention.head_count")?;
    let hidden = metadata.number(".embedding_length")?;
    let Some(embedding) = opened.tensor(EMBEDDING) else {
        return Err(metadata.unmade("config.json", "there is no token_embd.weight"));
    };
    if embedding.shape.len() != 2 || embedding.shape[1] != hidden {
        let problem = format!("is {hidden}, and token_embd.weight has another number of columns");
        return Err(metadata.bad(".embedding_length", &problem));
    }
    if heads == 0 {
        return Err(metadata.bad(".attention.head_count", "is 0"));
    }
    let head_dim = match metadata.find_number(".attention.key_length")? {
        Some(head_dim) => head_dim,
        None => hidden / heads,
    };
    check_heads(metadata, head_dim)?;
    let theta = metadata.find_float(".rope.freq_base")?.unwrap_or(10_000.0);
    let key_value_heads = metadata.find_number(".attention.head_count_kv")?;
    let epsilon = metadata.float(".attention.layer_norm_rms_epsilon")?;
    let mut config = Object::new();
    let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
    set("vocab_size", embedding.shape[0].into());
    set("hidden_size", hidden.into());
    let layers = match first_predictor(metadata)? {
        Some(first) => first,
        None => metadata.number(".block_count")?,
    };
    if layers > MAX_LAYERS {
        let problem = format!("is {layers}; at most {MAX_LAYERS} are read");
        return Err(metadata.bad(".block_count", &problem));
    }
    set("num_hidden_layers", layers.into());
    set("num_attention_heads", heads.into());
    set(
        "num_key_value_heads",
        key_value_heads.unwrap_or(heads).into(),
    );
    set("head_dim", head_dim.into());
    if let Some(width) = metadata.find_number(".feed_forward_length")? {
        set("intermediate_size", width.into());
    }
    set("hidden_act", "silu".into());
    let context = metadata.number(".context_length")?;
    set("max_position_embeddings", context.into());
    set("rms_norm_eps", shortest(epsilon));
    set("rope_theta", shortest(theta));
    set(
        "rope_scaling",
        rope_scaling(metadata, opened, head_dim, theta)?,
    );
    set("attention_bias", false.into());
    let is_tied = opened.tensor("lm_head.weight").is_none();
    set("tie_word_embeddings", is_tied.into());
    set("use_cache", true.into());
    // Both versions of transformers read this key.
    set("torch_dtype", dtype(embedding).into());
    config.extend(tokens(metadata)?);
    Ok(config)
}

/// Checks that heads are as wide for values as for keys, and rotated as a whole, where the architecture has it so.
fn check_heads(metadata: Metadata, head_dim: u64) -> Result<()> {
    let name = metadata.architecture.name;
    let differs =
        |key: &str| Ok::<_, crate::Error>(metadata.find_number(key)?.filter(|n| *n != head_dim));
    if name == "deepseek2" {
        return Ok(());
    }
    if let Some(value) = differs(".attention.value_length")? {
        let problem = format!("is {value}, and should be {head_dim} as key_length");
        return Err(metadata.bad(".attention.value_length", &problem));
    }
    match differs(".rope.dimension_count")? {
        Some(rotated) if !hybrid::HYBRID.contains(&name) => {
            let problem =
                format!("only {rotated} of the {head_dim} dimensions of a head are rotated");
            Err(metadata.unmade("config.json", &problem))
        }
        _ => Ok(()),
    }
}

/// What the weights are in: most of them are in what the embedding is in.
fn dtype(embedding: &Tensor) -> &'static str {
    Precision::from_dtype(embedding.dtype).map_or("bfloat16", Precision::torch_name)
}

fn gpt_oss(metadata: Metadata, common: &Object) -> Result<Object> {
    let layers = common.get("num_hidden_layers").and_then(Value::as_u64);
    let types = (0..layers.unwrap_or_default()).map(|layer| match layer % 2 {
        0 => "sliding_attention",
        _ => "full_attention",
    });
    let mut scaling = common.get("rope_scaling").cloned().unwrap_or_default();
    if scaling.is_object() {
        // All releases have it so; llama.cpp computes no other.
        scaling["truncate"] = false.into();
        for (key, value) in [("beta_fast", 32.0), ("beta_slow", 1.0)] {
            if scaling.get(key).is_none() {
                scaling[key] = value.into();
            }
        }
    }
    let mut config = named("gpt_oss", "GptOssForCausalLM");
    config.extend([
        ("rope_scaling".to_owned(), scaling),
        ("attention_bias".to_owned(), true.into()),
        (
            "intermediate_size".to_owned(),
            metadata.number(".expert_feed_forward_length")?.into(),
        ),
        (
            "num_local_experts".to_owned(),
            metadata.number(".expert_count")?.into(),
        ),
        (
            "num_experts_per_tok".to_owned(),
            metadata.number(".expert_used_count")?.into(),
        ),
        (
            "sliding_window".to_owned(),
            metadata.number(".attention.sliding_window")?.into(),
        ),
        ("layer_types".to_owned(), types.collect::<Vec<_>>().into()),
        ("swiglu_limit".to_owned(), 7.0.into()),
    ]);
    Ok(config)
}

fn named(model_type: &str, class: &str) -> Object {
    let mut config = Object::new();
    config.insert("architectures".to_owned(), json!([class]));
    config.insert("model_type".to_owned(), model_type.into());
    config
}

/// Whether the first layer has a tensor that ends so.
fn has(opened: &Opened, end: &str) -> bool {
    opened.tensor(&format!("model.layers.0.{end}")).is_some()
}

fn llama(metadata: Metadata, opened: &Opened) -> Result<Object> {
    let experts = metadata.find_number(".expert_count")?.unwrap_or(0);
    if experts > 0 {
        let mut config = named("mixtral", "MixtralForCausalLM");
        config.insert("num_local_experts".to_owned(), experts.into());
        let used = metadata.number(".expert_used_count")?;
        config.insert("num_experts_per_tok".to_owned(), used.into());
        config.insert("sliding_window".to_owned(), Value::Null);
        return Ok(config);
    }
    let mut config = named("llama", "LlamaForCausalLM");
    let biases = ["q_proj", "k_proj", "v_proj", "o_proj"];
    let biases = biases.map(|module| has(opened, &format!("self_attn.{module}.bias")));
    if biases.contains(&true) && biases.contains(&false) {
        let problem = "some projections of attention have a bias, and some have none";
        return Err(metadata.unmade("config.json", problem));
    }
    config.insert("attention_bias".to_owned(), biases[0].into());
    let mlp = has(opened, "mlp.gate_proj.bias");
    config.insert("mlp_bias".to_owned(), mlp.into());
    // Its code keeps the logits of each head in this many parts.
    config.insert("pretraining_tp".to_owned(), 1.into());
    Ok(config)
}

fn qwen2() -> Object {
    let mut config = named("qwen2", "Qwen2ForCausalLM");
    config.insert("use_sliding_window".to_owned(), false.into());
    config
}

fn qwen3(opened: &Opened) -> Object {
    let mut config = named("qwen3", "Qwen3ForCausalLM");
    config.insert("use_sliding_window".to_owned(), false.into());
    let bias = has(opened, "self_attn.q_proj.bias");
    config.insert("attention_bias".to_owned(), bias.into());
    config
}

fn qwen3_moe(metadata: Metadata, opened: &Opened) -> Result<Object> {
    let mut config = named("qwen3_moe", "Qwen3MoeForCausalLM");
    let bias = has(opened, "self_attn.q_proj.bias");
    let width = metadata.number(".expert_feed_forward_length")?;
    let dense = metadata.find_number(".feed_forward_length")?;
    config.extend([
        ("attention_bias".to_owned(), bias.into()),
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
            "intermediate_size".to_owned(),
            dense.unwrap_or(width).into(),
        ),
        // llama.cpp computes no other models of this architecture.
        ("norm_topk_prob".to_owned(), true.into()),
        ("decoder_sparse_step".to_owned(), 1.into()),
        ("mlp_only_layers".to_owned(), json!([])),
        ("use_sliding_window".to_owned(), false.into()),
    ]);
    Ok(config)
}

fn gemma3(metadata: Metadata, common: &Object) -> Result<Object> {
    /// Every layer of this number attends to everything, as llama.cpp and all releases have it.
    const PATTERN: u64 = 6;
    /// The model of this many layers scales attention by the width of all heads together, as llama.cpp has it.
    const LAYERS_OF_27B: u64 = 62;
    let number = |key: &str| common.get(key).and_then(Value::as_u64).unwrap_or_default();
    let layers = number("num_hidden_layers");
    let types = (1..=layers).map(|layer| match layer % PATTERN {
        0 => "full_attention",
        _ => "sliding_attention",
    });
    let scalar = match layers {
        LAYERS_OF_27B => number("hidden_size") / number("num_attention_heads").max(1),
        _ => number("head_dim"),
    };
    let local = metadata.find_float(".rope.freq_base_swa")?;
    let softcap = metadata.find_float(".final_logit_softcapping")?;
    let mut config = named("gemma3_text", "Gemma3ForCausalLM");
    let window = metadata.number(".attention.sliding_window")?;
    config.extend([
        ("hidden_activation".to_owned(), "gelu_pytorch_tanh".into()),
        ("hidden_act".to_owned(), "gelu_pytorch_tanh".into()),
        ("query_pre_attn_scalar".to_owned(), scalar.into()),
        ("sliding_window".to_owned(), window.into()),
        ("sliding_window_pattern".to_owned(), PATTERN.into()),
        ("layer_types".to_owned(), types.collect::<Vec<_>>().into()),
        (
            "rope_local_base_freq".to_owned(),
            shortest(local.unwrap_or(10_000.0)),
        ),
        (
            "final_logit_softcapping".to_owned(),
            softcap.map_or(Value::Null, shortest),
        ),
        ("attn_logit_softcapping".to_owned(), Value::Null),
    ]);
    Ok(config)
}

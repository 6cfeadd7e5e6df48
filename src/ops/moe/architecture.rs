//! The architectures of mixtures of experts: which models they are made of, what their tensors are called,
//! and what config.json says of them.

use serde_json::{Value, json};

use crate::catalog::Config;
use crate::ops::moe::definition::{Gates, MoeDefinition};

/// An architecture of the result.
#[derive(Debug, PartialEq)]
pub(super) struct Architecture {
    /// As recipes name it.
    pub(super) name: &'static str,
    /// The types of models that it is made of.
    models: &'static [&'static str],
    /// How many shared experts it has at least and at most.
    shared: (usize, usize),
    /// What stands between the number of the layer and the names of router and experts.
    pub(super) block: &'static str,
    /// gate_proj, up_proj and down_proj of an expert.
    pub(super) projections: [&'static str; 3],
    /// The module of the shared expert, and its router.
    pub(super) shared_expert: &'static str,
    pub(super) shared_gate: Option<&'static str>,
    /// Tensors of a layer beside those that all have.
    pub(super) more: &'static [&'static str],
    /// Biases that are zeros where the base has none.
    pub(super) biases: &'static [&'static str],
}

const DENSE: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];
const QKV_BIASES: &[&str] = &[
    "self_attn.q_proj.bias",
    "self_attn.k_proj.bias",
    "self_attn.v_proj.bias",
];

static MIXTRAL: Architecture = Architecture {
    name: "Mixtral",
    models: &["llama", "mistral"],
    shared: (0, 0),
    block: "block_sparse_moe",
    projections: ["w1", "w3", "w2"],
    shared_expert: "",
    shared_gate: None,
    more: &[],
    biases: &[],
};

static DEEPSEEK: Architecture = Architecture {
    name: "DeepSeek MoE",
    models: &["llama", "mistral"],
    shared: (0, 1),
    block: "mlp",
    projections: DENSE,
    shared_expert: "shared_experts",
    shared_gate: None,
    more: &[],
    biases: &[],
};

static QWEN2: Architecture = Architecture {
    name: "Qwen MoE",
    models: &["llama", "mistral", "qwen2"],
    shared: (1, 1),
    block: "mlp",
    projections: DENSE,
    shared_expert: "shared_expert",
    shared_gate: Some("shared_expert_gate"),
    more: QKV_BIASES,
    biases: QKV_BIASES,
};

static QWEN3: Architecture = Architecture {
    name: "Qwen3 MoE",
    models: &["qwen3"],
    shared: (0, 0),
    block: "mlp",
    projections: DENSE,
    shared_expert: "",
    shared_gate: None,
    more: &["self_attn.q_norm.weight", "self_attn.k_norm.weight"],
    biases: &[],
};

/// In the order in which they are chosen.
static ALL: [&Architecture; 4] = [&MIXTRAL, &DEEPSEEK, &QWEN2, &QWEN3];

impl Architecture {
    /// The architecture that `definition` asks for, or the first that fits models of the type `model_type`.
    ///
    /// # Errors
    /// If there is none, with why.
    pub(super) fn choose(
        definition: &MoeDefinition,
        model_type: &str,
    ) -> Result<&'static Self, String> {
        let wanted = definition.architecture.as_ref();
        let wanted = wanted.map_or(String::new(), |(name, _)| name.to_lowercase());
        let named = ALL
            .iter()
            .filter(|architecture| architecture.name.to_lowercase().starts_with(&wanted));
        let mut refusals = Vec::new();
        for architecture in named {
            match architecture.refuses(definition, model_type) {
                None => return Ok(architecture),
                Some(why) => refusals.push(format!("{} {why}", architecture.name)),
            }
        }
        match refusals.is_empty() {
            true => {
                let names: Vec<&str> = ALL.iter().map(|architecture| architecture.name).collect();
                Err(format!(
                    "no architecture begins with {wanted:?}; there is {}",
                    names.join(", ")
                ))
            }
            false => Err(format!(
                "no architecture fits these models: {}",
                refusals.join("; ")
            )),
        }
    }

    fn refuses(&self, definition: &MoeDefinition, model_type: &str) -> Option<String> {
        let shared = definition.shared.as_ref();
        let (least, most) = self.shared;
        if !self.models.contains(&model_type) {
            return Some(format!(
                "is made of {}, and these are {model_type}",
                self.models.join(", ")
            ));
        }
        match shared {
            Some(_) if most == 0 => Some("has no shared expert".to_owned()),
            None if least > 0 => Some("needs a shared expert".to_owned()),
            Some(shared)
                if self.shared_gate.is_some()
                    && definition.gates == Gates::CheapEmbed
                    && shared.prompts.positive.is_empty() =>
            {
                Some("needs positive_prompts of the shared expert".to_owned())
            }
            Some(shared) if self.shared_gate.is_none() && shared.prompts != Default::default() => {
                Some("has no router for the shared expert, which has prompts".to_owned())
            }
            _ => None,
        }
    }

    /// The names of the tensors of a layer that come from the base.
    pub(super) fn is_of_base(&self, rest: &str) -> bool {
        const ALL_HAVE: [&str; 6] = [
            "input_layernorm.weight",
            "post_attention_layernorm.weight",
            "self_attn.q_proj.weight",
            "self_attn.k_proj.weight",
            "self_attn.v_proj.weight",
            "self_attn.o_proj.weight",
        ];
        ALL_HAVE.contains(&rest) || self.more.contains(&rest)
    }

    /// Says in `config`, that of the base, of the type `model_type`, what the result is.
    pub(super) fn describe(
        &self,
        config: &mut Config,
        model_type: &str,
        definition: &MoeDefinition,
    ) {
        keep_defaults(config, model_type);
        let experts = json!(definition.experts.len());
        let per_token = json!(definition.experts_per_token);
        let width = config.get("intermediate_size").unwrap_or(Value::Null);
        let mut set = |key: &str, value: Value| config.set(key, &value);
        let (class, kind) = match self.name {
            "Mixtral" => ("MixtralForCausalLM", "mixtral"),
            "DeepSeek MoE" => ("DeepseekForCausalLM", "deepseek"),
            "Qwen MoE" => ("Qwen2MoeForCausalLM", "qwen2_moe"),
            _ => ("Qwen3MoeForCausalLM", "qwen3_moe"),
        };
        set("architectures", json!([class]));
        set("model_type", json!(kind));
        set("num_experts_per_tok", per_token);
        match kind {
            "mixtral" => {
                set("num_local_experts", experts);
                set("sliding_window", Value::Null);
            }
            "deepseek" => {
                let shared = usize::from(definition.shared.is_some());
                let shared = if shared > 0 {
                    json!(shared)
                } else {
                    Value::Null
                };
                set("n_routed_experts", experts);
                set("n_shared_experts", shared);
                set("moe_intermediate_size", width);
                set("first_k_dense_replace", json!(0));
                set("moe_layer_freq", json!(1));
                set("scoring_func", json!("softmax"));
                set("norm_topk_prob", json!(true));
                let of_hub = |file: &str, class: &str| {
                    json!(format!(
                        "deepseek-ai/deepseek-moe-16b-base--{file}.Deepseek{class}"
                    ))
                };
                set(
                    "auto_map",
                    json!({
                        "AutoConfig": of_hub("configuration_deepseek", "Config"),
                        "AutoModel": of_hub("modeling_deepseek", "Model"),
                        "AutoModelForCausalLM": of_hub("modeling_deepseek", "ForCausalLM"),
                    }),
                );
            }
            _ => {
                set("num_experts", experts);
                set("moe_intermediate_size", width.clone());
                set("decoder_sparse_step", json!(1));
                set("norm_topk_prob", json!(true));
                set("mlp_only_layers", json!([]));
                if kind == "qwen2_moe" {
                    set("shared_expert_intermediate_size", width);
                    set("sliding_window", Value::Null);
                    set("use_sliding_window", json!(false));
                }
            }
        }
    }
}

/// Writes down what the class of the base takes for granted, since the class of the result takes other things for
/// granted (<https://github.com/huggingface/transformers>, `configuration_llama.py` and the like).
fn keep_defaults(config: &mut Config, model_type: &str) {
    let heads = config.get("num_attention_heads").unwrap_or(json!(32));
    let (positions, key_heads) = match model_type {
        "llama" => (2048, heads),
        "mistral" => (131_072, json!(8)),
        _ => (32_768, json!(32)),
    };
    let mut defaults = vec![
        ("max_position_embeddings", json!(positions)),
        ("num_key_value_heads", key_heads),
        ("rms_norm_eps", json!(1e-6)),
        ("hidden_act", json!("silu")),
        ("tie_word_embeddings", json!(false)),
    ];
    if config.get("rope_parameters").is_none() {
        defaults.push(("rope_theta", json!(10_000.0)));
    }
    if model_type == "qwen3" {
        defaults.push(("head_dim", json!(128)));
    }
    for (key, value) in defaults {
        if config.get(key).is_none_or(|value| value.is_null()) {
            config.set(key, &value);
        }
    }
}

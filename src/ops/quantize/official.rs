//! What official FP8 releases quantize, by `model_type`; docs/FP8_RULES.md has the same table, and
//! the source of each row. A test holds the two against each other.

use std::path::Path;

use regex::Regex;

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::{PATTERNS, RULES};
use crate::error::{Code, Error, Hint, Result};

/// Models whose FP8 releases quantize the same tensors.
#[derive(Debug)]
pub struct Family {
    /// Their `model_type` in config.json.
    pub model_types: &'static [&'static str],
    /// What may stand before `layers.<i>.` in a name; nothing may always.
    pub before: &'static [&'static str],
    /// What is quantized, by the name behind `layers.<i>.`. `{a,b}` is one of several, `<j>` a number.
    pub tensors: &'static [&'static str],
}

const LANGUAGE_MODEL: &[&str] = &["model."];
/// Of models that have a vision tower too, by where transformers has put the language model.
const MULTIMODAL: &[&str] = &[
    "model.",
    "language_model.",
    "model.language_model.",
    "language_model.model.",
];
/// The same with the MTP block of Qwen.
const MULTIMODAL_WITH_MTP: &[&str] = &[
    "model.",
    "language_model.",
    "model.language_model.",
    "language_model.model.",
    "mtp.",
];

const ATTENTION: &str = "self_attn.{q,k,v,o}_proj.weight";
const LATENT_ATTENTION: &str =
    "self_attn.{q_proj,q_a_proj,q_b_proj,kv_a_proj_with_mqa,kv_b_proj,o_proj}.weight";
const INDEXER: &str = "self_attn.indexer.{wq_b,wk}.weight";
const MLP: &str = "mlp.{gate,up,down}_proj.weight";
const EXPERTS: &str = "mlp.experts.<j>.{gate,up,down}_proj.weight";
const FUSED_EXPERTS: &str = "mlp.experts.{gate_up_proj,down_proj}";
const SHARED_EXPERT: &str = "mlp.shared_expert.{gate,up,down}_proj.weight";
const SHARED_EXPERTS: &str = "mlp.shared_experts.{gate,up,down}_proj.weight";
const BLOCK_SPARSE_EXPERTS: &str = "block_sparse_moe.experts.<j>.{w1,w2,w3}.weight";

/// All families.
pub const FAMILIES: &[Family] = &[
    Family {
        model_types: &["deepseek_v3", "kimi_k2"],
        before: LANGUAGE_MODEL,
        tensors: &[
            LATENT_ATTENTION,
            MLP,
            SHARED_EXPERTS,
            EXPERTS,
            FUSED_EXPERTS,
        ],
    },
    Family {
        model_types: &["deepseek_v32", "glm_moe_dsa"],
        before: LANGUAGE_MODEL,
        tensors: &[
            LATENT_ATTENTION,
            INDEXER,
            MLP,
            SHARED_EXPERTS,
            EXPERTS,
            FUSED_EXPERTS,
        ],
    },
    Family {
        model_types: &["glm4_moe"],
        before: LANGUAGE_MODEL,
        tensors: &[ATTENTION, MLP, SHARED_EXPERTS, EXPERTS, FUSED_EXPERTS],
    },
    Family {
        model_types: &["qwen3"],
        before: LANGUAGE_MODEL,
        tensors: &[ATTENTION, MLP],
    },
    Family {
        model_types: &["qwen3_moe"],
        before: LANGUAGE_MODEL,
        tensors: &[ATTENTION, MLP, EXPERTS, FUSED_EXPERTS],
    },
    Family {
        model_types: &["qwen3_next"],
        before: &["model.", "mtp."],
        tensors: &[
            ATTENTION,
            "linear_attn.{in_proj_qkvz,out_proj}.weight",
            MLP,
            SHARED_EXPERT,
            EXPERTS,
            FUSED_EXPERTS,
        ],
    },
    Family {
        model_types: &["qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"],
        before: MULTIMODAL_WITH_MTP,
        tensors: &[
            ATTENTION,
            "linear_attn.{in_proj_qkv,in_proj_z,out_proj}.weight",
            MLP,
            SHARED_EXPERT,
            EXPERTS,
            FUSED_EXPERTS,
        ],
    },
    Family {
        model_types: &["minimax_m2"],
        before: LANGUAGE_MODEL,
        tensors: &[ATTENTION, BLOCK_SPARSE_EXPERTS],
    },
    Family {
        model_types: &["mixtral"],
        before: LANGUAGE_MODEL,
        tensors: &[ATTENTION, BLOCK_SPARSE_EXPERTS],
    },
    Family {
        model_types: &["llama"],
        before: LANGUAGE_MODEL,
        tensors: &[ATTENTION, MLP],
    },
    Family {
        model_types: &["gemma3", "gemma3_text"],
        before: MULTIMODAL,
        tensors: &[ATTENTION, MLP],
    },
    Family {
        model_types: &["nemotron_h"],
        before: &["backbone.", "model."],
        tensors: &[
            "mixer.{q,k,v,o}_proj.weight",
            "mixer.{in,out}_proj.weight",
            "mixer.{up,down}_proj.weight",
            "mixer.shared_experts.{up,down}_proj.weight",
            "mixer.experts.<j>.{up,down}_proj.weight",
        ],
    },
];

/// The `model_type` in the config.json of `catalog`, and the names that releases of it quantize.
///
/// # Errors
/// If config.json has none that is known, or cannot be read.
pub(super) fn names(catalog: &mut Catalog) -> Result<(String, Regex)> {
    let Some(config) = catalog.config_mut()? else {
        let directory = catalog.report.sources[0].path.clone();
        return Err(unknown(&directory.join(CONFIG_FILE), "the file is missing"));
    };
    let model_type = config.get("model_type");
    let found = model_type.as_ref().and_then(|value| value.as_str());
    match found.and_then(|found| Some((found.to_owned(), family(found)?))) {
        Some((model_type, family)) => Ok((model_type, family.names())),
        None => {
            let problem = match model_type {
                Some(value) => format!("model_type is {value}"),
                None => "it has no model_type".to_owned(),
            };
            Err(unknown(config.path(), &problem))
        }
    }
}

/// The `model_type` in the config.json of `catalog`, if it is known, and its names.
pub(super) fn known_names(catalog: &Catalog) -> Option<(String, Regex)> {
    let model_type = catalog.glance_at_config()?.get("model_type")?;
    let model_type = model_type.as_str()?;
    Some((model_type.to_owned(), family(model_type)?.names()))
}

fn unknown(config: &Path, problem: &str) -> Error {
    let known = FAMILIES.iter().flat_map(|family| family.model_types);
    let known: Vec<&str> = known.copied().collect();
    let problem = format!(
        "{problem}, and ckptfs knows what official FP8 releases quantize of {}",
        known.join(", ")
    );
    let select = Hint::give(PATTERNS)
        .to("select tensors by name")
        .or(Hint::give_value(RULES, "exact").to("quantize what the built-in rules name"));
    Error::of_file(Code::UnknownModelType, config, problem).with_hint(select)
}

fn family(model_type: &str) -> Option<&'static Family> {
    let mut families = FAMILIES.iter();
    families.find(|family| family.model_types.contains(&model_type))
}

impl Family {
    /// A regular expression of the names.
    fn names(&self) -> Regex {
        let any_of = |patterns: &[&str]| {
            let patterns: Vec<String> =
                patterns.iter().map(|pattern| expression(pattern)).collect();
            patterns.join("|")
        };
        let (before, tensors) = (any_of(self.before), any_of(self.tensors));
        let names = format!("^(?:{before})?layers\\.[0-9]+\\.(?:{tensors})$");
        Regex::new(&names).expect("the table has names, braces and <j> only")
    }
}

/// `mlp.experts.<j>.{w1,w2}.weight` as a regular expression.
fn expression(pattern: &str) -> String {
    let regex = regex::escape(pattern);
    let regex = regex.replace("<j>", "[0-9]+");
    regex
        .replace("\\{", "(?:")
        .replace("\\}", ")")
        .replace(',', "|")
}

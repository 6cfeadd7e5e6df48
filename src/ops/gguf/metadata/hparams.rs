//! The parameters of a model: config.json, with the language model's at the top level, and what
//! `transformers` takes where config.json is silent.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::catalog::CONFIG_FILE;
use crate::error::{Code, Error, Result};
use crate::ops::gguf::architecture::Architecture;

/// Parameters by their names in config.json.
#[derive(Debug)]
pub(crate) struct Hparams {
    values: Map<String, Value>,
    /// Layers that predict more tokens, after the others.
    nextn: u64,
    /// Those of rotary embeddings: of all layers, or `full_attention` and `sliding_attention`.
    rope: Map<String, Value>,
    path: PathBuf,
}

impl Hparams {
    /// Those of `config`, a config.json of `architecture` in `directory`.
    ///
    /// # Errors
    /// If the shape of the model is not in it.
    pub(crate) fn new(
        mut config: Map<String, Value>,
        architecture: &Architecture,
        directory: &Path,
        nextn: u64,
    ) -> Result<Self> {
        if let Some(Value::Object(text)) = config.get("text_config").cloned() {
            config.extend(text);
        }
        let mut hparams = Hparams {
            values: config,
            nextn: 0,
            rope: Map::new(),
            path: directory.join(CONFIG_FILE),
        };
        hparams.fill_in(architecture)?;
        hparams.rope = rope(&mut hparams.values, architecture);
        if architecture.has_nextn() {
            let declared = hparams
                .whole("mtp_num_hidden_layers")
                .filter(|layers| *layers > 0);
            hparams.nextn = declared.unwrap_or(nextn);
        }
        Ok(hparams)
    }

    /// Fills in what `transformers` does.
    fn fill_in(&mut self, architecture: &Architecture) -> Result<()> {
        let model_type = self.text("model_type").unwrap_or_default().to_owned();
        let heads = match (architecture.name, self.whole("num_attention_heads")) {
            ("gemma3", None) => 8,
            ("gpt-oss", None) => 64,
            (_, Some(heads)) => heads,
            _ => return Err(self.missing("num_attention_heads")),
        };
        let hidden = self.need("hidden_size")?;
        if heads == 0 {
            return Err(self.bad("num_attention_heads", "it must not be 0"));
        }
        self.default("num_attention_heads", json!(heads));
        let kv_heads = match (architecture.name, &*model_type) {
            ("gemma3", _) => 4,
            ("llama", "mistral" | "mixtral") => 8,
            ("qwen2" | "qwen3", _) => 32,
            ("qwen3moe", _) => 4,
            ("gpt-oss", _) => 8,
            _ => heads,
        };
        match self.values.get("num_key_value_heads") {
            None => self.default("num_key_value_heads", json!(kv_heads)),
            Some(Value::Null) => self.default("num_key_value_heads", json!(heads)),
            Some(_) => {}
        }
        match (architecture.name, &*model_type) {
            ("llama", "mixtral") => {}
            ("llama", _) => self.default("head_dim", json!(hidden / heads)),
            ("qwen3", _) => self.default("head_dim", json!(128)),
            ("deepseek2", _) => {
                let rope = self.need("qk_rope_head_dim")?;
                self.default("head_dim", json!(rope));
            }
            ("gemma3", _) => {
                self.default("head_dim", json!(256));
                self.default("vocab_size", json!(262_208));
                self.default("sliding_window", json!(4096));
            }
            ("gpt-oss", _) => {
                for (key, value) in [
                    ("head_dim", 64),
                    ("intermediate_size", 2880),
                    ("sliding_window", 128),
                    ("num_local_experts", 128),
                    ("num_experts_per_tok", 4),
                ] {
                    self.default(key, json!(value));
                }
            }
            _ => {}
        }
        let epsilon = match (architecture.name, &*model_type) {
            ("gpt-oss", _) | (_, "mixtral") => 1e-5,
            _ => 1e-6,
        };
        self.default("rms_norm_eps", json!(epsilon));
        let context = match (architecture.name, &*model_type) {
            ("llama", "mistral" | "mixtral") | ("gemma3" | "gpt-oss", _) => 131_072,
            ("llama", _) => 2048,
            _ => 32768,
        };
        self.default("max_position_embeddings", json!(context));
        if model_type == "mixtral" {
            self.default("num_local_experts", json!(8));
            self.default("num_experts_per_tok", json!(2));
        }
        Ok(())
    }

    /// Sets `key` if it is not there, or is null.
    fn default(&mut self, key: &str, value: Value) {
        let slot = self.values.entry(key).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value;
        }
    }

    /// The value of `key`, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// The first of `keys` that is there, unless it is null.
    pub(crate) fn first(&self, keys: &[&str]) -> Option<&Value> {
        let key = keys.iter().find(|key| self.values.contains_key(**key))?;
        self.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The whole number that `key` is.
    pub(crate) fn whole(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// The same, which the model needs.
    ///
    /// # Errors
    /// If it is not there, or no whole number.
    pub(crate) fn need(&self, key: &str) -> Result<u64> {
        self.whole(key).ok_or_else(|| self.missing(key))
    }

    /// Layers that predict more tokens, after the others.
    pub(crate) fn nextn(&self) -> u64 {
        self.nextn
    }

    /// All layers.
    ///
    /// # Errors
    /// If config.json does not say how many there are.
    pub(crate) fn layers(&self) -> Result<u64> {
        Ok(self.need("num_hidden_layers")?.saturating_add(self.nextn))
    }

    pub(crate) fn rope(&self) -> &Map<String, Value> {
        &self.rope
    }

    /// The parameters of rotary embeddings of layers with full attention.
    pub(crate) fn full_rope(&self) -> &Map<String, Value> {
        match self.rope.get("full_attention") {
            Some(Value::Object(rope)) => rope,
            _ => &self.rope,
        }
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        self.bad(key, "GGUF needs it, and it is missing or no whole number")
    }

    pub(crate) fn bad(&self, key: &str, problem: &str) -> Error {
        Error::of_file(Code::BadConfig, &self.path, format!("{key}: {problem}"))
    }
}

/// The parameters of rotary embeddings, in the form of `rope_parameters`.
fn rope(values: &mut Map<String, Value>, architecture: &Architecture) -> Map<String, Value> {
    let given = ["rope_parameters", "rope_scaling"].iter();
    let given = given.filter_map(|key| values.get(*key)?.as_object().cloned());
    let mut rope = given.into_iter().next().unwrap_or_default();
    let number = |key: &str| values.get(key).filter(|value| value.is_number()).cloned();
    let is_by_layer = |rope: &Map<String, Value>| {
        rope.contains_key("full_attention") || rope.contains_key("sliding_attention")
    };
    if is_by_layer(&rope) {
        return rope;
    }
    if !rope.contains_key("rope_type")
        && let Some(kind) = rope.get("type").cloned()
    {
        rope.insert("rope_type".to_owned(), kind);
    }
    if architecture.name == "gemma3" {
        rope.insert(
            "rope_theta".to_owned(),
            number("rope_theta").unwrap_or(json!(1_000_000.0)),
        );
        let local = number("rope_local_base_freq").unwrap_or(json!(10_000.0));
        let mut both = Map::new();
        both.insert("full_attention".to_owned(), Value::Object(rope));
        both.insert(
            "sliding_attention".to_owned(),
            json!({ "rope_theta": local }),
        );
        return both;
    }
    let theta = match &values.get("model_type").and_then(Value::as_str) {
        Some("mixtral") => 1_000_000.0,
        Some("gpt_oss") => 150_000.0,
        _ => 10_000.0,
    };
    for (key, value) in [
        (
            "rope_theta",
            Some(number("rope_theta").unwrap_or(json!(theta))),
        ),
        ("partial_rotary_factor", number("partial_rotary_factor")),
        (
            "original_max_position_embeddings",
            number("original_max_position_embeddings"),
        ),
    ] {
        if let Some(value) = value.filter(|_| !rope.contains_key(key)) {
            rope.insert(key.to_owned(), value);
        }
    }
    rope
}

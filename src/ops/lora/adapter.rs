//! A PEFT adapter as it is stored: `adapter_config.json`, and `adapter_model.safetensors` or
//! `adapter_model.bin`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::format::{Container, Shard};
use crate::ops::lora::token_indices::{self, TokenIndices};
use crate::ops::lora::writer::Writer;
use crate::source::{Blob, Directory, not_json};

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
const PICKLED_FILE: &str = "adapter_model.bin";

const RANK_PATTERN: &str = "rank_pattern";
const ALPHA_PATTERN: &str = "alpha_pattern";

/// The longest adapter_config.json that is read.
const MOST_CONFIG_BYTES: u64 = 1 << 20;

/// An adapter whose settings and header were read. No tensor byte was read.
#[derive(Debug)]
pub(super) struct Adapter {
    pub directory: PathBuf,
    pub weights: Arc<Shard>,
    pub settings: Settings,
}

/// What adapter_config.json says about merging.
#[derive(Debug)]
pub(super) struct Settings {
    rank: u64,
    alpha: f64,
    rank_pattern: Patterns,
    alpha_pattern: Patterns,
    pub rslora: bool,
    pub dora: bool,
    pub fan_in_fan_out: bool,
    /// Whether linear weights take the product rounded to their type.
    pub rounds_product: bool,
    pub target_parameters: Vec<String>,
    pub writer: Writer,
    pub tokens: TokenIndices,
    /// Whether what is trained of one of two tied embeddings is trained of both.
    pub ties: bool,
}

impl Adapter {
    /// Reads the adapter in `directory`.
    ///
    /// # Errors
    /// If a file is missing or malformed, or says something that a merge of this base cannot do.
    pub(super) fn open(directory: &dyn Directory) -> Result<Self> {
        if !directory.has(CONFIG_FILE) {
            return Err(Error::of_file(
                Code::NoAdapter,
                directory.location(),
                format!(
                    "no adapter here: expected {CONFIG_FILE}, and {WEIGHTS_FILE} or {PICKLED_FILE}"
                ),
            ));
        }
        let settings = Settings::read(&*directory.file(CONFIG_FILE)?)?;
        let (name, container) = if directory.has(WEIGHTS_FILE) || !directory.has(PICKLED_FILE) {
            (WEIGHTS_FILE, Container::Safetensors)
        } else {
            (PICKLED_FILE, Container::Torch)
        };
        Ok(Adapter {
            directory: directory.location().to_owned(),
            weights: container.shard(directory.location(), directory.weights(name)?)?,
            settings,
        })
    }

    /// An error about the tensor `key` of the adapter.
    pub(super) fn error(&self, code: Code, key: &str, problem: impl Into<String>) -> Error {
        Error::of_tensor(code, self.weights.blob.location(), key, problem)
    }
}

/// What changes the base when training starts, so that the base as it is stored is not the one
/// that the adapter belongs to. By the beginning of `init_lora_weights`, in lower case.
const CHANGING_INITS: [&str; 5] = ["pissa", "corda", "olora", "loftq", "lora_ga"];

/// Settings that a merge is refused for if they are set, and why.
const REFUSED: [(&str, &str); 8] = [
    (
        "layer_replication",
        "it repeats layers of the base, which changes the architecture",
    ),
    (
        "alora_invocation_tokens",
        "an activated LoRA acts from certain tokens on, so no merged weight is equal to it",
    ),
    (
        "arrow_config",
        "Arrow chooses among adapters for each token, so no merged weight is equal to it",
    ),
    (
        "use_qalora",
        "QA-LoRA pools its inputs and belongs to a quantized base",
    ),
    (
        "use_bdlora",
        "the factors are block-diagonal, which is not supported",
    ),
    (
        "monteclora_config",
        "the factors are sampled, which is not supported",
    ),
    (
        "kasa_config",
        "KaSA takes components out of the base, and the base without them is not stored here",
    ),
    (
        "megatron_config",
        "the factors are parallel layers of Megatron, which is not supported",
    ),
];

impl Settings {
    fn read(config: &dyn Blob) -> Result<Self> {
        let path = config.location();
        let refuse = |code, problem: String| Error::of_file(code, path, problem);
        let text = config.read_all(MOST_CONFIG_BYTES)?;
        let json: Map<String, Value> = serde_json::from_slice(&text).map_err(|e| {
            refuse(
                Code::BadAdapter,
                format!("not a JSON object: {}", not_json(&text, &e)),
            )
        })?;
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let flag = |key: &str| json.get(key).and_then(Value::as_bool).unwrap_or(false);

        match text("peft_type") {
            Some("LORA") => {}
            found => {
                return Err(refuse(
                    Code::UnsupportedAdapter,
                    format!(
                        "peft_type is {}; only LORA can be merged",
                        found.unwrap_or("not given")
                    ),
                ));
            }
        }
        for (key, reason) in REFUSED {
            if json.get(key).is_some_and(is_set) {
                return Err(refuse(
                    Code::UnsupportedAdapter,
                    format!("{key} is set: {reason}"),
                ));
            }
        }
        let init = text("init_lora_weights").unwrap_or_default().to_lowercase();
        if CHANGING_INITS.iter().any(|start| init.starts_with(start)) {
            return Err(refuse(Code::UnsupportedAdapter, format!(
                "init_lora_weights is \"{init}\": this initialization changed the base before training, so merging into the base as it is stored would be wrong"
            )).with_hint("save the adapter again with path_initial_model_for_weight_conversion, which converts it to a plain one"));
        }
        let number = |key: &str| {
            let value = json.get(key);
            let found = || value.map_or("not given".to_owned(), Value::to_string);
            value.and_then(Value::as_f64).ok_or_else(|| {
                refuse(
                    Code::BadAdapter,
                    format!("{key} is {}, but must be a number", found()),
                )
            })
        };
        let rank = json.get("r").and_then(Value::as_u64).filter(|&r| r > 0);
        let (dora, bias) = (flag("use_dora"), flag("lora_bias"));
        if dora && bias {
            return Err(refuse(
                Code::BadAdapter,
                "use_dora and lora_bias exclude each other".to_owned(),
            ));
        }
        let parameters = json.get("target_parameters").and_then(Value::as_array);
        Ok(Settings {
            rank: rank
                .ok_or_else(|| refuse(Code::BadAdapter, "r is not a positive number".to_owned()))?,
            alpha: number("lora_alpha")?,
            rank_pattern: Patterns::read(&json, RANK_PATTERN, path)?,
            alpha_pattern: Patterns::read(&json, ALPHA_PATTERN, path)?,
            rslora: flag("use_rslora"),
            dora,
            fan_in_fan_out: flag("fan_in_fan_out"),
            rounds_product: init == "mica",
            target_parameters: parameters
                .into_iter()
                .flatten()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            writer: Writer::read(&json, path)?,
            tokens: TokenIndices::read(json.get(token_indices::SETTING), path)?,
            ties: flag("ensure_weight_tying"),
        })
    }

    /// The rank that the settings give the module or parameter at `path`.
    pub(super) fn rank(&self, path: &str) -> f64 {
        self.rank_pattern.find(path).unwrap_or(self.rank as f64)
    }

    /// The settings that have patterns, with those that match none of `paths`.
    pub(super) fn idle_patterns(&self, paths: &[String]) -> [(&'static str, Vec<&str>); 2] {
        [
            (RANK_PATTERN, self.rank_pattern.idle(paths)),
            (ALPHA_PATTERN, self.alpha_pattern.idle(paths)),
        ]
    }

    /// How many patterns a module is held against.
    pub(super) fn patterns(&self) -> usize {
        self.rank_pattern.0.len() + self.alpha_pattern.0.len()
    }

    /// What the product is multiplied by: α/r or α/√r, times `weight`.
    pub(super) fn scaling(&self, path: &str, weight: f64) -> f64 {
        let alpha = self.alpha_pattern.find(path).unwrap_or(self.alpha);
        let rank = self.rank(path);
        let divisor = if self.rslora { rank.sqrt() } else { rank };
        weight * alpha / divisor
    }

    /// The last name of each parameter of `module` that is targeted by itself.
    pub(super) fn parameters_of<'a>(&'a self, module: &'a str) -> impl Iterator<Item = &'a str> {
        self.target_parameters.iter().filter_map(move |target| {
            let leaf = target.rsplit('.').next()?;
            let path = format!("{module}.{leaf}");
            let rest = path.strip_suffix(target.as_str())?;
            (rest.is_empty() || rest.ends_with('.')).then_some(leaf)
        })
    }
}

/// Whether a setting says something: not null, false, empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    }
}

/// Numbers for the modules whose path ends with what a regular expression matches.
#[derive(Debug)]
struct Patterns(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    text: String,
    pattern: Pattern,
    number: f64,
}

#[derive(Debug)]
enum Pattern {
    /// Names and dots only, where a dot stands for any character.
    Plain(String),
    Regex(Regex),
}

impl Patterns {
    fn read(json: &Map<String, Value>, key: &str, path: &Path) -> Result<Self> {
        const MOST: usize = 1 << 15;
        const MOST_REGEXES: usize = 256;
        let refuse =
            |problem: String| Error::of_file(Code::BadAdapter, path, format!("{key}: {problem}"));
        let entries = match json.get(key) {
            None | Some(Value::Null) => return Ok(Patterns(Vec::new())),
            Some(Value::Object(entries)) if entries.len() <= MOST => entries,
            Some(_) => return Err(refuse(format!("not an object of at most {MOST} entries"))),
        };
        let mut regexes = 0;
        let mut patterns = Vec::new();
        for (text, value) in entries {
            let number = value.as_f64().filter(|number| *number > 0.0);
            let number = number.ok_or_else(|| refuse(format!("{text} has no positive number")))?;
            let pattern = Pattern::new(text)
                .map_err(|e| refuse(format!("the pattern {text} cannot be used: {e}")))?;
            regexes += usize::from(matches!(pattern, Pattern::Regex(_)));
            if regexes > MOST_REGEXES {
                return Err(refuse(format!(
                    "more than {MOST_REGEXES} regular expressions"
                )));
            }
            patterns.push(Entry {
                text: text.clone(),
                pattern,
                number,
            });
        }
        Ok(Patterns(patterns))
    }

    /// The number of the first that matches.
    fn find(&self, path: &str) -> Option<f64> {
        let mut matching = self.0.iter().filter(|entry| entry.pattern.matches(path));
        matching.next().map(|entry| entry.number)
    }

    /// Those that match none of `paths`.
    fn idle(&self, paths: &[String]) -> Vec<&str> {
        let is_idle = |entry: &&Entry| !paths.iter().any(|path| entry.pattern.matches(path));
        let idle = self.0.iter().filter(is_idle);
        idle.map(|entry| entry.text.as_str()).collect()
    }
}

impl Pattern {
    fn new(text: &str) -> std::result::Result<Self, regex::Error> {
        const SIZE_LIMIT: usize = 1 << 18;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if text.chars().all(is_plain) {
            return Ok(Pattern::Plain(text.to_owned()));
        }
        let compile = |text: &str| RegexBuilder::new(text).size_limit(SIZE_LIMIT).build();
        // On its own first: unbalanced parentheses must not escape the anchors.
        compile(text)?;
        compile(&format!(r"^(?:.*\.)?(?:{text})$")).map(Pattern::Regex)
    }

    /// Whether it matches `path`, or the end of it behind a dot.
    fn matches(&self, path: &str) -> bool {
        match self {
            Pattern::Regex(regex) => regex.is_match(path),
            Pattern::Plain(plain) => {
                let mut rest = path.chars().rev();
                let mut wanted = plain.chars().rev();
                wanted.all(|c| rest.next().is_some_and(|found| c == '.' || c == found))
                    && rest.next().is_none_or(|before| before == '.')
            }
        }
    }
}

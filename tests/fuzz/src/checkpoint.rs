//! Checkpoints made of arbitrary choices: names that mean something to some operator, shapes at
//! the edges, and now and then a text of the fuzzer's own.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::{fs, io};

use ckptfs::format::safetensors::{data_start, parse_header};
use ckptfs::format::{Checkpoint, Container, Shard};
use ckptfs::source::Attributes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::{DIRECTORY, any_file};

/// A shard with `header`, whose file is an empty one.
pub fn shard(header: &str) -> Arc<Shard> {
    let metadata: safetensors::tensor::Metadata =
        serde_json::from_str(header).expect("this header is valid");
    let len = data_start(header.len() as u64) + metadata.data_len() as u64;
    let tensors = parse_header(header.as_bytes(), len, Path::new("model.safetensors"))
        .expect("this header is valid");
    Arc::new(Shard {
        name: "model.safetensors".to_owned(),
        checkpoint: DIRECTORY.path().into(),
        container: Container::Safetensors,
        blob: any_file(),
        tensors,
    })
}

/// The checkpoint that is one shard.
pub fn in_memory(shard: &Arc<Shard>) -> Checkpoint {
    static ATTRIBUTES: LazyLock<Attributes> =
        LazyLock::new(|| Attributes::read(DIRECTORY.path()).expect("the directory is there"));
    let names = shard.tensors.keys();
    Checkpoint {
        path: DIRECTORY.path().to_owned(),
        attributes: *ATTRIBUTES,
        tensors: names.map(|name| (name.clone(), 0)).collect(),
        shards: vec![shard.clone()],
        aux: Vec::new(),
        left_out: Vec::new(),
        notes: Vec::new(),
        gguf: None,
        training: None,
    }
}

/// A directory to be written.
#[derive(Debug, Arbitrary)]
pub struct Source {
    shards: Vec<ShardFile>,
    index: Index,
    config: ConfigText,
    /// Whether values may be infinite or not numbers.
    any_values: bool,
}

#[derive(Debug, Arbitrary)]
struct ShardFile {
    name: u8,
    content: Content,
}

#[derive(Debug, Arbitrary)]
enum Content {
    Tensors(Vec<Tensor>),
    /// Tensors, and this many bytes more or fewer than they take.
    Length(Vec<Tensor>, i8),
    Header(String, u8),
    File(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct Tensor {
    name: Name,
    dtype: u8,
    dimensions: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Name {
    Module {
        prefix: u8,
        module: u8,
        suffix: u8,
    },
    Expert {
        prefix: u8,
        number: u8,
        module: u8,
        suffix: u8,
    },
    Any(String),
}

#[derive(Debug, Arbitrary)]
enum Index {
    True,
    Absent,
    /// The true one, with one entry set.
    Changed(Name, u8),
    Any(String),
}

#[derive(Debug, Arbitrary)]
enum ConfigText {
    Empty,
    Absent,
    Keys(Vec<(u8, Setting)>),
    Any(String),
}

#[derive(Debug, Arbitrary)]
enum Setting {
    Number(u64),
    Text(String),
    Fp8(Vec<String>),
    Nested(u8, u64),
    Any(String),
}

const SHARDS: [&str; 8] = [
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "part-a.safetensors",
    "config.json",
    "tokenizer.json",
    "../out.safetensors",
    "model.safetensors.index.json",
];
pub(crate) const PREFIXES: [&str; 6] = [
    "model.layers.0.",
    "model.layers.1.",
    "mtp.layers.0.",
    "layers.18446744073709551615.",
    "",
    "model.language_model.layers.3.",
];
pub(crate) const MODULES: [&str; 12] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "mlp.gate",
    "lm_head",
    "mlp.experts.gate_up_proj",
    "mlp.experts.down_proj",
    "linear_attn.in_proj_qkv",
    "__metadata__",
];
const PROJECTIONS: [&str; 4] = ["gate_proj", "up_proj", "down_proj", "other"];
const SUFFIXES: [&str; 6] = [
    ".weight",
    "",
    ".weight_scale_inv",
    "_scale_inv",
    ".bias",
    ".weight_scale_inv_scale_inv",
];
const DTYPES: [Dtype; 12] = [
    Dtype::BF16,
    Dtype::F8_E4M3,
    Dtype::F32,
    Dtype::F16,
    Dtype::U8,
    Dtype::F4,
    Dtype::F8_E8M0,
    Dtype::F6_E2M3,
    Dtype::BOOL,
    Dtype::I64,
    Dtype::C64,
    Dtype::F8_E5M2,
];
const LONG: [u64; 8] = [127, 128, 129, 200, 256, 1 << 32, 1 << 60, 1 << 63];
const KEYS: [&str; 8] = [
    "quantization_config",
    "text_config",
    "model_type",
    "hidden_size",
    "num_experts",
    "num_hidden_layers",
    "num_nextn_predict_layers",
    "architectures",
];

pub(crate) fn pick<T: Copy>(from: &[T], choice: u8) -> T {
    from[usize::from(choice) % from.len()]
}

impl Name {
    fn text(&self) -> String {
        match self {
            Name::Module {
                prefix,
                module,
                suffix,
            } => [
                pick(&PREFIXES, *prefix),
                pick(&MODULES, *module),
                pick(&SUFFIXES, *suffix),
            ]
            .concat(),
            Name::Expert {
                prefix,
                number,
                module,
                suffix,
            } => format!(
                "{}mlp.experts.{}.{}{}",
                pick(&PREFIXES, *prefix),
                number % 4,
                pick(&PROJECTIONS, *module),
                pick(&SUFFIXES, *suffix)
            ),
            Name::Any(text) => text.clone(),
        }
    }
}

impl Tensor {
    fn shape(&self) -> Vec<u64> {
        let length = |&choice: &u8| match choice {
            0..=240 => u64::from(choice % 12),
            241.. => LONG[usize::from(choice) % LONG.len()],
        };
        self.dimensions.iter().take(4).map(length).collect()
    }

    fn dtype(&self) -> Dtype {
        pick(&DTYPES, self.dtype)
    }

    fn len(&self) -> u64 {
        let bits = self.dtype().bitsize() as u64;
        let elements = self.shape().iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        elements
            .and_then(|n| n.checked_mul(bits))
            .map_or(u64::MAX, |bits| bits / 8)
    }
}

impl ShardFile {
    fn bytes(&self, any_values: bool) -> (Vec<String>, Vec<u8>) {
        /// Longer files are cut off.
        const MOST: u64 = 1 << 18;
        let (tensors, change) = match &self.content {
            Content::Tensors(tensors) => (tensors, 0),
            Content::Length(tensors, change) => (tensors, i64::from(*change)),
            Content::Header(header, data) => {
                return (Vec::new(), file(header, u64::from(*data), any_values));
            }
            Content::File(bytes) => return (Vec::new(), bytes.clone()),
        };
        let mut at = 0u64;
        let mut header = Map::new();
        for tensor in tensors.iter().take(12) {
            let name = tensor.name.text();
            if header.contains_key(&name) {
                continue;
            }
            let begin = at;
            at = at.saturating_add(tensor.len());
            let entry = json!({
                "dtype": tensor.dtype(), "shape": tensor.shape(), "data_offsets": [begin, at],
            });
            header.insert(name, entry);
        }
        let names = header
            .keys()
            .filter(|name| *name != "__metadata__")
            .cloned()
            .collect();
        let len = at.saturating_add_signed(change).min(MOST);
        (
            names,
            file(&Value::Object(header).to_string(), len, any_values),
        )
    }
}

/// A header with its length in front, and `data` bytes behind it.
pub(crate) fn file(header: &str, data: u64, any_values: bool) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    // Without its upper bits, no byte makes a number that is not finite.
    let mask = if any_values { 0xff } else { 0x3f };
    bytes.extend((0..data).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 & mask));
    bytes
}

impl Index {
    fn text(&self, mut true_one: Map<String, Value>) -> Option<String> {
        match self {
            Index::True => {}
            Index::Absent => return None,
            Index::Changed(name, shard) => {
                true_one.insert(name.text(), pick(&SHARDS, *shard).into());
            }
            Index::Any(text) => return Some(text.clone()),
        }
        Some(json!({"metadata": {}, "weight_map": true_one}).to_string())
    }
}

impl ConfigText {
    fn text(&self) -> Option<String> {
        match self {
            ConfigText::Empty => Some("{}".to_owned()),
            ConfigText::Absent => None,
            ConfigText::Any(text) => Some(text.clone()),
            ConfigText::Keys(keys) => {
                let entries: Vec<String> = keys
                    .iter()
                    .map(|(key, value)| format!("\"{}\": {}", pick(&KEYS, *key), value.text()))
                    .collect();
                Some(format!("{{{}}}", entries.join(",\n")))
            }
        }
    }
}

impl Setting {
    fn text(&self) -> String {
        match self {
            Setting::Number(number) => number.to_string(),
            Setting::Text(text) => Value::from(text.as_str()).to_string(),
            Setting::Fp8(skipped) => json!({
                "quant_method": "fp8",
                "weight_block_size": [128, 128],
                "modules_to_not_convert": skipped,
            })
            .to_string(),
            Setting::Nested(key, number) => format!("{{\"{}\": {number}}}", pick(&KEYS, *key)),
            Setting::Any(text) => text.clone(),
        }
    }
}

impl Source {
    /// Writes the checkpoint into the new `directory`; returns the bytes written.
    pub fn write(&self, directory: &Path) -> io::Result<usize> {
        fs::create_dir(directory)?;
        let mut written = 0;
        let mut put = |name: &str, content: &[u8]| {
            written += content.len();
            fs::write(directory.join(name), content)
        };
        let mut map = Map::new();
        for shard in self.shards.iter().take(3) {
            let name = pick(&SHARDS, shard.name);
            let (tensors, bytes) = shard.bytes(self.any_values);
            map.extend(tensors.into_iter().map(|tensor| (tensor, name.into())));
            if !name.contains('/') {
                put(name, &bytes)?;
            }
        }
        if let Some(text) = self.config.text() {
            put("config.json", text.as_bytes())?;
        }
        if let Some(text) = self.index.text(map) {
            put("model.safetensors.index.json", text.as_bytes())?;
        }
        Ok(written)
    }
}

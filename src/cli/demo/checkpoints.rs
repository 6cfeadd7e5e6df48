//! Two small checkpoints that look like real ones: a base, and an extra with the multi-token
//! prediction block that the base lacks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use half::bf16;
use safetensors::tensor::{Dtype, View};
use serde_json::json;

const HIDDEN: usize = 512;
const INTERMEDIATE: usize = 1536;
const KEY_VALUE: usize = 256;
const VOCABULARY: usize = 8192;
const LAYERS: usize = 8;

/// Writes `base` (two shards, an index, config and tokenizer) and `extra` (one shard).
pub(crate) fn write(base: &Path, extra: &Path) -> anyhow::Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);

    let mut first = vec![random.tensor("model.embed_tokens.weight", &[VOCABULARY, HIDDEN])];
    let mut second = Vec::new();
    for layer in 0..LAYERS {
        let shard = if layer < LAYERS / 2 {
            &mut first
        } else {
            &mut second
        };
        shard.extend(random.block(&format!("model.layers.{layer}")));
    }
    second.push(random.tensor("model.norm.weight", &[HIDDEN]));

    let mut mtp = random.block("mtp.layers.0");
    mtp.push(random.tensor("mtp.fc.weight", &[HIDDEN, 2 * HIDDEN]));
    // The extra has this tensor too, with other values: the base must win.
    mtp.push(random.tensor("model.norm.weight", &[HIDDEN]));

    write_checkpoint(base, &[first, second])?;
    write_checkpoint(extra, &[mtp])?;
    fs::write(base.join("config.json"), config()).context("config.json")?;
    fs::write(base.join("tokenizer_config.json"), "{}\n").context("tokenizer_config.json")?;
    Ok(())
}

fn config() -> String {
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
    });
    format!("{config:#}\n")
}

fn write_checkpoint(directory: &Path, shards: &[Vec<NamedTensor>]) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut weight_map = serde_json::Map::new();
    let mut total_size = 0;
    for (i, tensors) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        for tensor in tensors {
            weight_map.insert(tensor.name.clone(), json!(name));
            total_size += tensor.bytes.len();
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let views = tensors.iter().map(|tensor| (&tensor.name, tensor));
        let path = directory.join(&name);
        safetensors::serialize_to_file(views, Some(metadata), &path)
            .with_context(|| path.display().to_string())?;
    }
    let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
    let path = directory.join("model.safetensors.index.json");
    fs::write(&path, format!("{index:#}\n")).with_context(|| path.display().to_string())
}

/// A BF16 tensor in memory.
struct NamedTensor {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A xorshift generator: the demo needs weights that look alike, not good ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// About normal, with a standard deviation of about 0.02: the sum of four uniform numbers.
    fn weight(&mut self) -> bf16 {
        let bits = self.next();
        let sum: i32 = (0..4).map(|i| i32::from((bits >> (16 * i)) as u16)).sum();
        bf16::from_f32((sum - 2 * 0xffff) as f32 * (0.02 / 37_800.0))
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> NamedTensor {
        let elements = shape.iter().product();
        let mut bytes = Vec::with_capacity(2 * elements);
        for _ in 0..elements {
            bytes.extend(self.weight().to_le_bytes());
        }
        NamedTensor {
            name: name.to_owned(),
            shape: shape.to_owned(),
            bytes,
        }
    }

    /// The tensors of one transformer block.
    fn block(&mut self, prefix: &str) -> Vec<NamedTensor> {
        const TENSORS: [(&str, &[usize]); 9] = [
            ("input_layernorm", &[HIDDEN]),
            ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.k_proj", &[KEY_VALUE, HIDDEN]),
            ("self_attn.v_proj", &[KEY_VALUE, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("mlp.gate_proj", &[INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", &[INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, INTERMEDIATE]),
        ];
        TENSORS
            .iter()
            .map(|(module, shape)| self.tensor(&format!("{prefix}.{module}.weight"), shape))
            .collect()
    }
}

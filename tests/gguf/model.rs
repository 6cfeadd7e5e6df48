//! Small models in Hugging Face's layout, and what the converter of llama.cpp makes of them, stated naively:
//! `convert_hf_to_gguf.py`, release b11434.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::ops::{DtypeParams, LikeParams, Operations, Precision};
use ckptfs::recipe::{Plan, ViewRequest};

use crate::bytes::{Gguf, array, f32_value, string, strings, u32_value, value};

/// A tensor of F32 values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Values {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Values {
    /// Values that are exact in few bits, so that sums with 1 are exact too; a function of `seed`.
    pub(crate) fn new(shape: &[usize], seed: usize) -> Self {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| {
            let mixed = (i + 1)
                .wrapping_mul(2_654_435_761)
                .wrapping_add(seed * 40_503);
            ((mixed >> 7) % 509) as f32 / 256.0 - 1.0
        });
        Values {
            shape: shape.to_vec(),
            values: values.collect(),
        }
    }

    pub(crate) fn with(&self, shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Values {
            shape: shape.to_vec(),
            values,
        }
    }

    /// The elements of row `i` of the first dimension.
    pub(crate) fn row(&self, i: usize) -> &[f32] {
        let width = self.values.len() / self.shape[0];
        &self.values[i * width..(i + 1) * width]
    }

    /// Row `i` of the result is row `from(i)` of this.
    pub(crate) fn rows(&self, count: usize, from: impl Fn(usize) -> usize) -> Self {
        let mut shape = self.shape.clone();
        shape[0] = count;
        let values = (0..count).flat_map(|i| self.row(from(i)).to_vec());
        self.with(&shape, values.collect())
    }

    pub(crate) fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        self.with(&self.shape, self.values.iter().map(|v| f(*v)).collect())
    }

    pub(crate) fn reshaped(&self, shape: &[usize]) -> Self {
        self.with(shape, self.values.clone())
    }

    /// One after the other along the first dimension.
    pub(crate) fn joined(parts: &[Values]) -> Self {
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        let values = parts.iter().flat_map(|part| part.values.clone()).collect();
        parts[0].with(&shape, values)
    }

    /// As entries of a new first dimension.
    pub(crate) fn stacked(parts: &[Values]) -> Self {
        let shape = [&[parts.len()], &parts[0].shape[..]].concat();
        let values = parts.iter().flat_map(|part| part.values.clone()).collect();
        parts[0].with(&shape, values)
    }

    pub(crate) fn transposed(&self) -> Self {
        let [rows, columns] = self.shape[..] else {
            panic!("a matrix");
        };
        let values = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c)));
        let values = values.map(|(r, c)| self.values[r * columns + c]);
        self.with(&[columns, rows], values.collect())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn dimensions(&self) -> Vec<u64> {
        self.shape.iter().rev().map(|d| *d as u64).collect()
    }
}

/// Rows of each head in the order of interleaved rotary embeddings.
pub(crate) fn permuted(weight: &Values, heads: usize) -> Values {
    let width = weight.shape[0] / heads;
    weight.rows(weight.shape[0], |row| {
        let (head, at) = (row / width, row % width);
        head * width + at % 2 * (width / 2) + at / 2
    })
}

/// A model on both sides.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub hf: BTreeMap<String, Values>,
    pub gguf: Vec<(String, Values)>,
    pub keys: Vec<(String, Vec<u8>)>,
}

impl Model {
    /// A model of this architecture with the usual keys, an embedding and a last norm.
    pub(crate) fn new(
        architecture: &str,
        hidden: usize,
        heads: usize,
        key_value_heads: usize,
    ) -> Self {
        let mut model = Model::default();
        let arch = |key: &str| format!("{architecture}.{key}");
        let numbers = [
            ("context_length", 128),
            ("embedding_length", hidden),
            ("block_count", 1),
            ("feed_forward_length", 32),
            ("attention.head_count", heads),
            ("attention.head_count_kv", key_value_heads),
        ];
        model.key("general.architecture", string(architecture));
        for (key, number) in numbers {
            model.key(&arch(key), u32_value(number as u32));
        }
        model.key(&arch("attention.layer_norm_rms_epsilon"), f32_value(1e-5));
        model.same(
            "model.embed_tokens.weight",
            "token_embd.weight",
            &[8, hidden],
        );
        model
    }

    pub(crate) fn key(&mut self, key: &str, value: Vec<u8>) {
        self.keys.push((key.to_owned(), value));
    }

    pub(crate) fn number(&mut self, key: &str, number: usize) {
        self.key(key, u32_value(number as u32));
    }

    fn seed(&self) -> usize {
        self.hf.len() + 1
    }

    /// A tensor that stays as it is.
    pub(crate) fn same(&mut self, hf: &str, gguf: &str, shape: &[usize]) {
        self.changed(hf, gguf, shape, Values::clone);
    }

    /// A tensor of which `change` makes GGUF's.
    pub(crate) fn changed(
        &mut self,
        hf: &str,
        gguf: &str,
        shape: &[usize],
        change: impl Fn(&Values) -> Values,
    ) {
        let values = Values::new(shape, self.seed());
        self.gguf.push((gguf.to_owned(), change(&values)));
        self.hf.insert(hf.to_owned(), values);
    }

    /// A tensor of Hugging Face's side alone.
    pub(crate) fn only_hf(&mut self, hf: &str, shape: &[usize]) -> Values {
        let values = Values::new(shape, self.seed());
        self.hf.insert(hf.to_owned(), values.clone());
        values
    }

    pub(crate) fn only_gguf(&mut self, gguf: &str, values: Values) {
        self.gguf.push((gguf.to_owned(), values));
    }

    /// A byte-level tokenizer of 8 tokens.
    pub(crate) fn with_tokenizer(mut self) -> Self {
        let tokens = ["a", "b", "c", "ab", "<|end|>", "<tool>", "[PAD6]", "[PAD7]"];
        let types: Vec<u8> = [1i32, 1, 1, 1, 3, 4, 5, 5]
            .iter()
            .flat_map(|t| t.to_le_bytes())
            .collect();
        self.key("tokenizer.ggml.model", string("gpt2"));
        self.key("tokenizer.ggml.pre", string("qwen2"));
        self.key("tokenizer.ggml.tokens", strings(&tokens));
        self.key("tokenizer.ggml.token_type", array(5, 8, &types));
        self.key("tokenizer.ggml.merges", strings(&["a b"]));
        self.key("tokenizer.ggml.eos_token_id", u32_value(4));
        self.key("tokenizer.ggml.add_bos_token", value(7, &[0]));
        self.key("tokenizer.chat_template", string("{{ messages }}"));
        self
    }

    /// The file, all tensors in F32.
    pub(crate) fn file(&self) -> Gguf {
        let mut file = Gguf::default();
        for (key, value) in &self.keys {
            file = file.key(key, value.clone());
        }
        for (name, values) in &self.gguf {
            file = file.tensor(name, 0, &values.dimensions(), &values.bytes());
        }
        file
    }

    /// Writes the file into `directory`.
    pub(crate) fn write(&self, directory: &Path) -> PathBuf {
        write(directory, "model.gguf", &self.file())
    }
}

pub(crate) fn write(directory: &Path, name: &str, file: &Gguf) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, file.bytes()).unwrap();
    path
}

/// A directory with a config.json and no weights, for `--like`.
pub(crate) fn like(directory: &Path) -> PathBuf {
    let like = directory.join("like");
    fs::create_dir_all(&like).unwrap();
    fs::write(like.join("config.json"), "{\"num_hidden_layers\": 1}\n").unwrap();
    fs::write(like.join("tokenizer.json"), "{}\n").unwrap();
    fs::write(like.join("model.safetensors.index.json"), "not looked at").unwrap();
    like
}

pub(crate) fn request(base: &Path, dtype: Option<Precision>, like: Option<&Path>) -> ViewRequest {
    ViewRequest {
        operations: Operations {
            dtype: DtypeParams { to: dtype },
            like: LikeParams {
                directory: like.map(Into::into),
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
}

pub(crate) fn plan(base: &Path, dtype: Option<Precision>, like: Option<&Path>) -> Plan {
    request(base, dtype, like)
        .plan()
        .expect("the view can be planned")
}

//! LoRA adapters written by hand.

use std::fs;
use std::path::PathBuf;

use safetensors::Dtype;
use serde_json::{Value, json};

use super::Workspace;
use super::checkpoint::{TensorData, of_values};
use super::safetensors_file::serialize;
use super::values::Random;

/// An adapter: its settings and its tensors.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub(crate) config: Value,
    pub(crate) tensors: Vec<TensorData>,
}

impl Adapter {
    /// Settings of this rank and alpha, no tensors yet.
    pub(crate) fn new(rank: usize, alpha: f64) -> Self {
        Adapter {
            config: json!({"peft_type": "LORA", "r": rank, "lora_alpha": alpha}),
            tensors: Vec::new(),
        }
    }

    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config[key] = value.into();
        self
    }

    pub(crate) fn tensor(mut self, tensor: TensorData) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// Random factors of a linear layer `[out, in]`.
    pub(crate) fn linear(self, module: &str, [out, input]: [usize; 2], rank: usize) -> Self {
        let name = |role| format!("base_model.model.{module}.lora_{role}.weight");
        self.tensor(numbers(&name("A"), Dtype::F32, &[rank, input]))
            .tensor(numbers(&name("B"), Dtype::F32, &[out, rank]))
    }

    pub(crate) fn write(&self, workspace: &Workspace, name: &str) -> PathBuf {
        let directory = workspace.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        let config = self.config.to_string();
        fs::write(directory.join("adapter_config.json"), config).unwrap();
        let weights = serialize(&self.tensors);
        fs::write(directory.join("adapter_model.safetensors"), weights).unwrap();
        directory
    }

    /// The tensor whose name ends so.
    pub(crate) fn get(&self, end: &str) -> &TensorData {
        let mut found = self.tensors.iter().filter(|t| t.name.ends_with(end));
        found.next().expect("the adapter has the tensor")
    }
}

/// A tensor of random numbers around 0, mostly below 0.1, seeded by its name.
pub(crate) fn numbers(name: &str, dtype: Dtype, shape: &[usize]) -> TensorData {
    let seed = name
        .bytes()
        .fold(11, |h, b| h * 31 % 1_000_003 + u64::from(b));
    let mut random = Random::new(seed);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| (random.next() >> 40) as f32 / (1u64 << 23) as f32 * 0.2 - 0.2)
        .collect();
    of_values(name, dtype, shape, &values)
}

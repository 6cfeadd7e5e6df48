//! LoRA adapters made of arbitrary choices, for the modules that [checkpoints](crate::checkpoint)
//! have.

use std::path::Path;
use std::{fs, io};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::checkpoint::{MODULES, PREFIXES, file, pick};

/// An adapter to be written.
#[derive(Debug, Arbitrary)]
pub struct Adapter {
    rank: u8,
    alpha: i8,
    dora: bool,
    rslora: bool,
    fan_in_fan_out: bool,
    layers: Vec<Layer>,
    any_values: bool,
}

#[derive(Debug, Arbitrary)]
struct Layer {
    prefix: u8,
    module: u8,
    role: u8,
    output: u8,
    input: u8,
    /// The rank of this layer, if it is not the adapter's.
    rank: Option<u8>,
    half: bool,
}

/// What a layer stores beside both factors.
const ROLES: [&str; 6] = [
    "",
    "lora_magnitude_vector",
    "lora_B.bias",
    "lora_embedding_A",
    "modules_to_save.weight",
    "base_layer.weight",
];

impl Adapter {
    /// Makes `directory` and writes the adapter into it; returns how many bytes that took.
    pub fn write(&self, directory: &Path) -> io::Result<usize> {
        let rank = u64::from(self.rank % 6);
        let config = json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": self.alpha, "use_dora": self.dora,
            "use_rslora": self.rslora, "fan_in_fan_out": self.fan_in_fan_out,
        })
        .to_string();
        let mut at = 0;
        let mut header = Map::new();
        for layer in self.layers.iter().take(6) {
            let dtype = if layer.half { Dtype::BF16 } else { Dtype::F32 };
            for (name, shape) in layer.tensors(rank) {
                if header.contains_key(&name) {
                    continue;
                }
                let begin = at;
                at += shape.iter().product::<u64>() * dtype.bitsize() as u64 / 8;
                let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, at]});
                header.insert(name, entry);
            }
        }
        let weights = file(&Value::Object(header).to_string(), at, self.any_values);
        fs::create_dir(directory)?;
        fs::write(directory.join("adapter_config.json"), &config)?;
        fs::write(directory.join("adapter_model.safetensors"), &weights)?;
        Ok(config.len() + weights.len())
    }
}

impl Layer {
    fn tensors(&self, rank: u64) -> Vec<(String, Vec<u64>)> {
        let rank = self.rank.map_or(rank, |rank| u64::from(rank % 6));
        let (output, input) = (u64::from(self.output % 12), u64::from(self.input % 12));
        let module = [pick(&PREFIXES, self.prefix), pick(&MODULES, self.module)].concat();
        let name = |role: &str| format!("base_model.model.{module}.{role}");
        let mut tensors = vec![
            (name("lora_A.weight"), vec![rank, input]),
            (name("lora_B.weight"), vec![output, rank]),
        ];
        match pick(&ROLES, self.role) {
            "" => {}
            role @ "lora_embedding_A" => {
                tensors = vec![
                    (name(role), vec![rank, input]),
                    (name("lora_embedding_B"), vec![output, rank]),
                ];
            }
            role if role.ends_with(".weight") => tensors.push((name(role), vec![output, input])),
            role => tensors.push((name(role), vec![output])),
        }
        tensors
    }
}

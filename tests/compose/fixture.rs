//! Models, an adapter of theirs, and an extra.

use std::path::PathBuf;

use ckptfs::ops::LoraRequest;
use ckptfs::recipe::{Places, ViewRequest};
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::adapter::{Adapter, numbers};
use crate::common::checkpoint::{Checkpoint, TensorData};

const CONFIG: &str = r#"{
  "num_hidden_layers": 2,
  "torch_dtype": "bfloat16",
  "vocab_size": 300
}"#;

fn model(seed: &str) -> Checkpoint {
    let tensor = |name: &str, shape: &[usize]| TensorData {
        name: name.to_owned(),
        ..numbers(&format!("{seed} {name}"), Dtype::BF16, shape)
    };
    let mut tensors = vec![tensor("model.embed_tokens.weight", &[300, 200])];
    for layer in 0..2 {
        let tensor = |part: &str, shape: &[usize]| {
            tensor(&format!("model.layers.{layer}.{part}.weight"), shape)
        };
        tensors.extend([
            tensor("self_attn.q_proj", &[256, 200]),
            tensor("self_attn.k_proj", &[130, 200]),
            tensor("self_attn.v_proj", &[130, 200]),
            // Several bands of every kernel.
            tensor("mlp.down_proj", &[200, 5000]),
            tensor("input_layernorm", &[200]),
        ]);
    }
    tensors.push(tensor("model.norm.weight", &[200]));
    Checkpoint::single(tensors)
        .config(CONFIG)
        .aux("tokenizer.json", "{}")
}

/// A workspace with the models `a`, `b` and `c`, the adapter `l` and the extra `more`.
pub(crate) fn workspace() -> Workspace {
    let workspace = Workspace::new();
    for name in ["a", "b", "c"] {
        workspace.write(name, &model(name));
    }
    adapter().write(&workspace, "l");
    let more = [
        numbers(
            "mtp.layers.0.self_attn.o_proj.weight",
            Dtype::F32,
            &[256, 256],
        ),
        numbers("mtp.norm.weight", Dtype::F32, &[200]),
    ];
    workspace.write("more", &Checkpoint::single(more));
    workspace
}

fn adapter() -> Adapter {
    Adapter::new(4, 6.0)
        .linear("model.layers.0.self_attn.k_proj", [130, 200], 4)
        .linear("model.layers.1.mlp.down_proj", [200, 5000], 4)
}

pub(crate) fn recipe(workspace: &Workspace, text: &str) -> ViewRequest {
    let path = workspace.path().join("recipe.yml");
    std::fs::write(&path, text).unwrap();
    ViewRequest::from_recipe(&path, &Places::default()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

pub(crate) fn lora(directory: PathBuf, weight: f64) -> LoraRequest {
    LoraRequest {
        adapter: directory.into(),
        weight,
    }
}

//! Tiny models and recipes that name them.

use std::fs;
use std::path::PathBuf;

use ckptfs::recipe::{Places, Plan, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values};
use crate::common::{Workspace, message, readback};

pub(crate) const LAYERS: u64 = 4;

/// The tensors of a model beside its head, layer after layer.
pub(crate) fn names(layers: u64) -> Vec<String> {
    let layer = |i| {
        ["mlp.down_proj", "self_attn.q_proj", "input_layernorm"]
            .map(|part| format!("model.layers.{i}.{part}.weight"))
    };
    let mut names = vec!["model.embed_tokens.weight".to_owned()];
    names.extend((0..layers).flat_map(layer));
    names.push("model.norm.weight".to_owned());
    names
}

pub(crate) fn config(layers: u64) -> String {
    format!(
        r#"{{
  "architectures": ["LlamaForCausalLM"],
  "num_hidden_layers": {layers},
  "layer_types": {:?},
  "torch_dtype": "bfloat16",
  "vocab_size": 6
}}
"#,
        (0..layers).map(|i| format!("type{i}")).collect::<Vec<_>>()
    )
}

/// A model of these tensors in one file.
pub(crate) fn model(tensors: Vec<TensorData>) -> Checkpoint {
    Checkpoint::single(tensors)
        .config(&config(LAYERS))
        .aux("tokenizer.json", "{}")
        .aux("tokenizer_config.json", "{}")
        .aux("README.md", "about one model")
}

/// A model of random bf16, other ones for each `name`.
pub(crate) fn random(name: &str) -> Checkpoint {
    let mut names = names(LAYERS);
    names.push("lm_head.weight".to_owned());
    let tensor = |tensor: &String| TensorData {
        name: tensor.clone(),
        ..bf16(&format!("{name} {tensor}"), &[6, 4])
    };
    model(names.iter().map(tensor).collect())
}

/// A model of ones in f32: multiplied with a parameter, they are the parameter.
pub(crate) fn ones() -> Checkpoint {
    let tensors = names(LAYERS);
    let one = |name: &String| of_values(name, Dtype::F32, &[2], &[1.0, 1.0]);
    model(tensors.iter().map(one).collect())
}

/// A workspace with the models `a`, `b` and `ones`.
pub(crate) fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("a", &random("a"));
    workspace.write("b", &random("b"));
    workspace.write("ones", &ones());
    workspace
}

/// Writes a recipe, which names models beside it.
pub(crate) fn write(workspace: &Workspace, recipe: &str) -> PathBuf {
    let path = workspace.path().join("recipe.yml");
    fs::write(&path, recipe).unwrap();
    path
}

pub(crate) fn plan(workspace: &Workspace, recipe: &str) -> ckptfs::Result<Plan> {
    let path = write(workspace, recipe);
    ViewRequest::from_recipe(&path, &Places::default())?.plan()
}

/// The tensors that a recipe shows, by name.
pub(crate) fn shown(
    workspace: &Workspace,
    recipe: &str,
) -> std::collections::BTreeMap<String, TensorData> {
    let plan = plan(workspace, recipe).unwrap_or_else(|error| panic!("{error}\n{recipe}"));
    readback::tensors(&plan)
}

/// The message of the error that a recipe is.
pub(crate) fn error(workspace: &Workspace, recipe: &str) -> String {
    message(plan(workspace, recipe))
}

/// A dense Llama of two layers with random bf16.
pub(crate) fn dense(seed: u64) -> Checkpoint {
    const PARTS: [(&str, [usize; 2]); 7] = [
        ("self_attn.q_proj", [8, 8]),
        ("self_attn.k_proj", [4, 8]),
        ("self_attn.v_proj", [4, 8]),
        ("self_attn.o_proj", [8, 8]),
        ("mlp.gate_proj", [12, 8]),
        ("mlp.up_proj", [12, 8]),
        ("mlp.down_proj", [8, 12]),
    ];
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![128, 8])];
    for layer in 0..2 {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        tensors.extend(PARTS.map(|(part, shape)| (name(part), shape.to_vec())));
        let norms = ["input_layernorm", "post_attention_layernorm"];
        tensors.extend(norms.map(|norm| (name(norm), vec![8])));
    }
    tensors.push(("model.norm.weight".to_owned(), vec![8]));
    tensors.push(("lm_head.weight".to_owned(), vec![128, 8]));
    let tensors = tensors.iter().zip(0..);
    let tensors = tensors.map(|((name, shape), number)| {
        crate::common::checkpoint::tensor(name, Dtype::BF16, shape, seed * 100 + number)
    });
    Checkpoint::single(tensors.collect::<Vec<_>>())
        .config(
            r#"{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_size": 8,
  "intermediate_size": 12,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "num_hidden_layers": 2,
  "torch_dtype": "bfloat16",
  "vocab_size": 128
}
"#,
        )
        .aux("tokenizer_config.json", r#"{"bos_token": "t1"}"#)
}

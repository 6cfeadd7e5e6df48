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

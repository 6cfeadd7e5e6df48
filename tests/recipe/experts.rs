//! Mixtures of experts: which bytes are whose, what routers are, and what config.json says.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::values::decode;
use crate::common::{Workspace, readback};
use crate::fixture::{dense, plan, shown};
use safetensors::Dtype;

fn workspace() -> (Workspace, [Checkpoint; 2]) {
    let workspace = Workspace::new();
    let vocabulary: serde_json::Map<String, Value> =
        (0..128).map(|id| (format!("t{id}"), id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
    });
    let models = [1, 2].map(|seed| dense(seed).aux("tokenizer.json", tokenizer.to_string()));
    workspace.write("x", &models[0]);
    workspace.write("y", &models[1]);
    (workspace, models)
}

fn config(workspace: &Workspace, recipe: &str) -> Value {
    let plan = plan(workspace, recipe).unwrap();
    serde_json::from_slice(&readback::read_path(&plan, "config.json").unwrap()).unwrap()
}

fn row(shown: &BTreeMap<String, TensorData>, name: &str, row: usize) -> Vec<f64> {
    let tensor = &shown[name];
    let values = decode(tensor.dtype, &tensor.bytes);
    let columns = tensor.shape[1];
    values[row * columns..][..columns]
        .iter()
        .map(|x| f64::from(*x))
        .collect()
}

#[test]
fn a_mixtral_has_the_bytes_of_the_base_and_of_each_expert() {
    let (workspace, [x, y]) = workspace();
    let recipe =
        "base_model: x\ngate_mode: random\nexperts: [{source_model: y}, {source_model: x}]\n";
    let shown = shown(&workspace, recipe);
    for layer in 0..2 {
        let at = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
        for rest in ["self_attn.q_proj", "self_attn.o_proj", "input_layernorm"] {
            assert_eq!(shown[&at(rest)].bytes, x.get(&at(rest)).bytes);
        }
        for (number, expert) in [(0, &y), (1, &x)] {
            for (from, to) in [("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")] {
                let name = at(&format!("block_sparse_moe.experts.{number}.{to}"));
                assert_eq!(
                    shown[&name].bytes,
                    expert.get(&at(&format!("mlp.{from}"))).bytes
                );
            }
        }
        assert_eq!(shown[&at("block_sparse_moe.gate")].shape, [2, 8]);
    }
    // Per layer: 4 of attention, 2 norms, 6 of experts, a router; embedding, norm and head.
    assert_eq!(shown.len(), 2 * 13 + 3);
    let config = config(&workspace, recipe);
    assert_eq!(
        config["architectures"],
        serde_json::json!(["MixtralForCausalLM"])
    );
    assert_eq!(config["model_type"], "mixtral");
    assert_eq!(config["num_local_experts"], 2);
    assert_eq!(config["num_experts_per_tok"], 2);
    // What a Llama takes for granted and a Mixtral does not.
    assert_eq!(config["rope_theta"], 10_000.0);
    assert_eq!(config["rms_norm_eps"], 1e-6);
    assert_eq!(config["max_position_embeddings"], 2048);
}

#[test]
fn prompts_point_routers_to_the_sum_of_their_embeddings() {
    let (workspace, [x, _]) = workspace();
    let recipe = "
base_model: x
gate_mode: cheap_embed
dtype: float32
experts:
  - {source_model: x, positive_prompts: ['t5 t6', t5]}
  - {source_model: y, positive_prompts: [t7], negative_prompts: [t8 t9]}
";
    let shown = shown(&workspace, recipe);
    let embedding = BTreeMap::from([("e".to_owned(), x.get("model.embed_tokens.weight").clone())]);
    // With the token that texts begin with, t1. Words are tokens: 't1t7' is none that is known.
    let tokens = |ids: &[usize]| -> Vec<f64> {
        let mut sum = [0.0; 8];
        for id in ids {
            for (sum, x) in sum.iter_mut().zip(row(&embedding, "e", *id)) {
                *sum += x;
            }
        }
        let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        sum.iter().map(|x| x / length).collect()
    };
    let positive = tokens(&[0, 6, 0]);
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.block_sparse_moe.gate.weight");
        for (found, expected) in row(&shown, &name, 0).iter().zip(&positive) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
        let (positive, negative) = (tokens(&[0]), tokens(&[0, 9]));
        let pairs = positive.iter().zip(&negative);
        let mut expected: Vec<f64> = pairs.map(|(p, n)| p - n).collect();
        let length = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
        expected.iter_mut().for_each(|x| *x /= length);
        for (found, expected) in row(&shown, &name, 1).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }
}

#[test]
fn random_routers_depend_on_the_seed_and_the_layer_alone() {
    let (workspace, _) = workspace();
    let recipe = |mode: &str, seed: u64| {
        format!(
            "base_model: x\ngate_mode: {mode}\ndtype: float32\nexperts: [{{source_model: x}}, {{source_model: y}}]\nview: {{seed: {seed}}}\n"
        )
    };
    let gate = |layer: u64| format!("model.layers.{layer}.block_sparse_moe.gate.weight");
    let of = |mode: &str, seed: u64| {
        let shown = shown(&workspace, &recipe(mode, seed));
        [0, 1].map(|layer| shown[&gate(layer)].bytes.clone())
    };
    let first = of("random", 1);
    assert_eq!(first, of("random", 1));
    assert_ne!(first, of("random", 2));
    assert_ne!(first[0], first[1]);
    let uniform = of("uniform_random", 1);
    let values = decode(Dtype::F32, &uniform.concat());
    let bound = 1.0 / 8f32.sqrt();
    assert!(values.iter().all(|x| x.abs() <= bound));
    assert!(values.iter().any(|x| x.abs() > bound / 2.0));
}

#[test]
fn routers_of_a_file_are_taken_as_they_are() {
    let (workspace, _) = workspace();
    let routers = [0, 1].map(|layer| {
        let values: Vec<f32> = (0..16).map(|i| (layer * 16 + i) as f32).collect();
        of_values(
            &format!("model.layers.{layer}.mlp.gate.weight"),
            Dtype::BF16,
            &[2, 8],
            &values,
        )
    });
    workspace.write("gates", &Checkpoint::single(routers.clone()));
    let shown = shown(
        &workspace,
        "base_model: x\ngates: gates/model.safetensors\nexperts: [{source_model: x}, {source_model: y}]\n",
    );
    for (layer, router) in routers.iter().enumerate() {
        let name = format!("model.layers.{layer}.block_sparse_moe.gate.weight");
        assert_eq!(shown[&name].bytes, router.bytes);
    }
}

#[test]
fn a_shared_expert_makes_a_deepseek_or_with_prompts_a_qwen() {
    let (workspace, [x, _]) = workspace();
    let with = |more: &str| {
        format!(
            "base_model: x\nexperts: [{{source_model: x, positive_prompts: [t2]}}, {{source_model: y, positive_prompts: [t3]}}]\n{more}\n"
        )
    };
    let deepseek =
        with("gate_mode: random\nshared_experts: [{source_model: x, residual_scale: 0.5}]");
    let tensors = shown(&workspace, &deepseek);
    let down = "model.layers.1.mlp.down_proj.weight";
    let halved: Vec<f32> = decode(Dtype::BF16, &x.get(down).bytes)
        .iter()
        .map(|x| x * 0.5)
        .collect();
    let found = &tensors["model.layers.1.mlp.shared_experts.down_proj.weight"];
    assert_eq!(decode(Dtype::BF16, &found.bytes), halved);
    let up = "model.layers.1.mlp.up_proj.weight";
    assert_eq!(
        tensors["model.layers.1.mlp.shared_experts.up_proj.weight"].bytes,
        x.get(up).bytes
    );
    let described = config(&workspace, &deepseek);
    assert_eq!(described["model_type"], "deepseek");
    assert_eq!(described["n_shared_experts"], 1);

    let qwen =
        with("gate_mode: cheap_embed\nshared_experts: [{source_model: y, positive_prompts: [t4]}]");
    let tensors = shown(&workspace, &qwen);
    assert_eq!(
        tensors["model.layers.0.mlp.shared_expert_gate.weight"].shape,
        [1, 8]
    );
    let bias = &tensors["model.layers.0.self_attn.k_proj.bias"];
    assert_eq!(bias.shape, [4]);
    assert_eq!(bias.bytes[..], [0; 8]);
    let described = config(&workspace, &qwen);
    assert_eq!(described["model_type"], "qwen2_moe");
    assert_eq!(described["shared_expert_intermediate_size"], 12);
}

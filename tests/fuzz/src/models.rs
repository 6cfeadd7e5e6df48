//! Tiny models and adapters of them.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::DIRECTORY;

/// What a recipe can call a model, and where it is: `a` to `d` are alike, `f` is one of them in
/// block FP8, `m` has other tensors, `l` is an adapter, `t` and `u` are a Llama each.
pub static MODELS: LazyLock<Vec<(String, PathBuf)>> = LazyLock::new(|| {
    let layers = 0..4;
    let mut names = vec!["model.embed_tokens.weight".to_owned()];
    for layer in layers {
        for part in ["self_attn.q_proj", "mlp.down_proj"] {
            names.push(format!("model.layers.{layer}.{part}.weight"));
        }
    }
    names.push("model.norm.weight".to_owned());
    let plain = |name: &String| (name.clone(), Dtype::BF16, vec![4, 4]);
    let fp8 = |name: &String| {
        [
            (name.clone(), Dtype::F8_E4M3, vec![4, 4]),
            (format!("{name}_scale_inv"), Dtype::F32, vec![1, 1]),
        ]
    };
    let mut models: Vec<(String, PathBuf)> = Vec::new();
    for (seed, model) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let tensors = names.iter().map(plain).collect();
        models.push(write(model, "", tensors, seed as u8));
    }
    let quantization = r#", "quantization_config": {"quant_method": "fp8"}"#;
    let tensors = names.iter().flat_map(fp8).collect();
    models.push(write("f", quantization, tensors, 5));
    let other = vec![("mtp.layers.0.w".to_owned(), Dtype::BF16, vec![4])];
    models.push(write("m", "", other, 6));
    models.push(adapter());
    for (seed, model) in ["t", "u"].into_iter().enumerate() {
        models.push(dense(model, seed as u8 + 7));
    }
    models
});

type Described = (String, Dtype, Vec<usize>);

fn weights(tensors: Vec<Described>, seed: u8) -> Vec<u8> {
    // Without its upper bits, no byte makes a number that is not finite.
    let bytes: Vec<u8> = (0..64u8)
        .map(|i| i.wrapping_mul(37).wrapping_add(seed) & 0x3f)
        .collect();
    let tensors = tensors.into_iter().map(|(name, dtype, shape)| {
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let view = TensorView::new(dtype, shape, &bytes[..len]).expect("a tensor of that length");
        (name, view)
    });
    serialize(tensors, None).expect("tensors can be written")
}

fn write(name: &str, keys: &str, tensors: Vec<Described>, seed: u8) -> (String, PathBuf) {
    let config = format!(r#"{{"num_hidden_layers": 4, "torch_dtype": "bfloat16"{keys}}}"#);
    let tokenizer = r#"{"model": {"vocab": {"p": 0, "q": 1, "r": 2, "s": 3}}}"#;
    directory(
        name,
        &[
            ("config.json", config.as_bytes()),
            ("tokenizer.json", tokenizer.as_bytes()),
            ("model.safetensors", &weights(tensors, seed)),
        ],
    )
}

/// A Llama of one layer, whose tokenizer knows words.
fn dense(name: &str, seed: u8) -> (String, PathBuf) {
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    let matrices = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let mlp = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), Dtype::BF16, vec![4, 4])];
    let square = matrices.iter().chain(&mlp);
    tensors.extend(square.map(|part| (layer(part), Dtype::BF16, vec![4, 4])));
    let norms = ["input_layernorm", "post_attention_layernorm"];
    tensors.extend(norms.map(|norm| (layer(norm), Dtype::BF16, vec![4])));
    tensors.push(("model.norm.weight".to_owned(), Dtype::BF16, vec![4]));
    let config = br#"{"model_type": "llama", "num_hidden_layers": 1, "torch_dtype": "bfloat16", "vocab_size": 4, "intermediate_size": 4}"#;
    let tokenizer = br#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "vocab": {"p": 0, "q": 1, "r": 2, "s": 3}, "unk_token": "p"}}"#;
    directory(
        name,
        &[
            ("config.json", config),
            ("tokenizer.json", tokenizer),
            ("model.safetensors", &weights(tensors, seed)),
        ],
    )
}

/// Adapters of `a`: of linear layers and the embedding, and one with magnitudes (DoRA).
pub static ADAPTERS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let embedding = "base_model.model.model.embed_tokens";
    let mut plain = factors(0);
    plain.extend(factors(1));
    plain.push((
        format!("{embedding}.lora_embedding_A"),
        Dtype::F32,
        vec![1, 4],
    ));
    plain.push((
        format!("{embedding}.lora_embedding_B"),
        Dtype::F32,
        vec![4, 1],
    ));
    let mut dora = factors(2);
    let magnitude = format!("{}.lora_magnitude_vector", module(2));
    dora.push((magnitude, Dtype::F32, vec![4]));
    let write = |name, tensors| directory(name, &[(WEIGHTS, &weights(tensors, 8))]).1;
    vec![write("plain", plain), write("dora", dora)]
});

const WEIGHTS: &str = "adapter_model.safetensors";

fn module(layer: usize) -> String {
    format!("base_model.model.model.layers.{layer}.self_attn.q_proj")
}

/// The factors of the module of `layer`, of rank 1.
fn factors(layer: usize) -> Vec<Described> {
    let factor = |role, shape: [usize; 2]| {
        let name = format!("{}.lora_{role}.weight", module(layer));
        (name, Dtype::F32, shape.to_vec())
    };
    vec![factor("A", [1, 4]), factor("B", [4, 1])]
}

fn adapter() -> (String, PathBuf) {
    let config = br#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2}"#;
    let factors = weights(factors(1), 7);
    directory("l", &[("adapter_config.json", config), (WEIGHTS, &factors)])
}

fn directory(name: &str, files: &[(&str, &[u8])]) -> (String, PathBuf) {
    let directory = DIRECTORY.path().join(name);
    fs::create_dir(&directory).expect("a directory can be made");
    for (file, content) in files {
        fs::write(directory.join(file), content).expect("a file can be written");
    }
    (name.to_owned(), directory)
}

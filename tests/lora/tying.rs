//! Adapters that change both uses of tied embeddings alike.

use ckptfs::error::Code;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::tensors;
use crate::common::values::{decode, encode};
use crate::common::{Workspace, assert_names};
use crate::fixture::{Adapter, merged, numbers, plan, weight};

const INPUT: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";
const TIED: &str = r#"{"vocab_size": 30, "tie_word_embeddings": true}"#;

fn base() -> Checkpoint {
    Checkpoint::single([weight("model.embed_tokens", &[30, 8])]).config(TIED)
}

fn whole(seed: &str, name: &str) -> TensorData {
    let mut tensor = numbers(seed, Dtype::BF16, &[30, 8]);
    tensor.name = format!("base_model.model.{name}");
    tensor
}

/// A tensor of `[rows, columns]` as `[columns, rows]`.
fn transposed(tensor: &TensorData, name: &str) -> TensorData {
    let values = decode(tensor.dtype, &tensor.bytes);
    let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
    let turned: Vec<f32> = (0..rows * columns)
        .map(|at| values[at % rows * columns + at / rows])
        .collect();
    let bytes = encode(tensor.dtype, &turned);
    TensorData::new(name, tensor.dtype, &[columns, rows], bytes)
}

/// Factors of the input, and the same of the output.
fn factors() -> [TensorData; 4] {
    let name = |role| format!("model.embed_tokens.lora_embedding_{role}");
    let a = numbers(&name("A"), Dtype::F32, &[2, 30]);
    let b = numbers(&name("B"), Dtype::F32, &[8, 2]);
    let output_a = transposed(&b, "lm_head.lora_A.weight");
    let output_b = transposed(&a, "lm_head.lora_B.weight");
    [a, b, output_a, output_b]
}

fn adapter(tensors: impl IntoIterator<Item = TensorData>) -> Adapter {
    let adapter = Adapter::new(2, 2.0);
    tensors.into_iter().fold(adapter, Adapter::tensor)
}

#[test]
fn equal_tensors_for_both_uses_take_the_place_of_the_one_that_is_stored() {
    let (input, output) = (whole("x", INPUT), whole("x", OUTPUT));
    let both = adapter([input.clone(), output]);
    assert_eq!(merged(&base(), &both, INPUT), *input.bytes);
    // PEFT keeps them alike in training if it is told to, and may save one.
    let one = adapter([input.clone()]).set("ensure_weight_tying", true);
    assert_eq!(merged(&base(), &one, INPUT), *input.bytes);
}

#[test]
fn an_output_that_is_stored_all_the_same_follows() {
    let output = weight("lm_head", &[30, 8]);
    let stored = Checkpoint::single([weight("model.embed_tokens", &[30, 8]), output]).config(TIED);
    let workspace = Workspace::new();
    let base = workspace.write("base", &stored);
    let [input, output] = [INPUT, OUTPUT].map(|name| whole("x", name));
    let lora = adapter([input.clone(), output]).write(&workspace, "lora");
    let found = tensors(&plan(&base, &lora).unwrap());
    assert_eq!(*found[INPUT].bytes, *input.bytes);
    assert_eq!(*found[OUTPUT].bytes, *input.bytes);
}

#[test]
fn factors_of_both_uses_that_are_alike_are_merged_once() {
    let [a, b, output_a, output_b] = factors();
    // What the input's factors alone make of an embedding that is not tied.
    let untied = Checkpoint::single([
        weight("model.embed_tokens", &[30, 8]),
        weight("lm_head", &[30, 8]),
    ]);
    let expected = merged(&untied, &adapter([a.clone(), b.clone()]), INPUT);
    let both = adapter([a, b, output_a, output_b]);
    assert_eq!(merged(&base(), &both, INPUT), expected);
}

#[test]
fn what_differs_between_the_two_uses_is_refused() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let (input, output) = (whole("x", INPUT), whole("x", OUTPUT));
    let mut nearly = output.clone();
    let mut bytes = nearly.bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    nearly = TensorData::new(&nearly.name, nearly.dtype, &nearly.shape, bytes);
    let [a, b, output_a, output_b] = factors();
    let other_a = numbers("lm_head.lora_A.weight", Dtype::F32, &[2, 8]);
    for (lora, words) in [
        (adapter([input.clone(), nearly]), "different ways"),
        (adapter([input]), "one use"),
        (
            adapter([output]).set("ensure_weight_tying", true),
            "one use",
        ),
        (
            adapter([a.clone(), b.clone(), other_a, output_b.clone()]),
            "different ways",
        ),
        (adapter([a, b]).set("ensure_weight_tying", true), "one use"),
        (adapter([output_a, output_b]), "one use"),
    ] {
        let error = plan(&base, &lora.write(&workspace, "lora")).unwrap_err();
        assert_eq!(error.code(), Code::TiedEmbeddings, "{error}");
        assert_names(&error.to_string(), &["tied", words]);
    }
}

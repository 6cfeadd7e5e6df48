//! A view as GGUF: names, values and types, held against the rules as they are stated in docs/GGUF.md. Whole
//! files are held against llama.cpp in tests/consumers/test_gguf.py.

use std::path::Path;

use ckptfs::error::Code;
use ckptfs::ops::{GgufKind, GgufParams};
use ckptfs::recipe::{Plan, ViewRequest};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::readback::{read_file, reader};

const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = HIDDEN / HEADS;

fn values(name: &str, count: usize) -> Vec<f32> {
    let seed: usize = name.bytes().map(usize::from).sum();
    let value = |i: usize| bf16::from_f32(((i * 7919 + seed * 31) % 1009) as f32 / 300.0 - 1.5);
    (0..count).map(|i| value(i).to_f32()).collect()
}

fn tensor(name: &str, shape: &[usize]) -> TensorData {
    let values = values(name, shape.iter().product());
    of_values(name, Dtype::BF16, shape, &values)
}

/// A tokenizer.model of three pieces, by hand.
fn pieces() -> Vec<u8> {
    let mut model = Vec::new();
    for (piece, kind) in [("<unk>", 2), ("<s>", 3), ("a", 1)] {
        let mut message = vec![0x0a, piece.len() as u8];
        message.extend_from_slice(piece.as_bytes());
        message.push(0x15);
        message.extend_from_slice(&(-1.0f32).to_le_bytes());
        message.extend_from_slice(&[0x18, kind]);
        model.extend_from_slice(&[0x0a, message.len() as u8]);
        model.extend_from_slice(&message);
    }
    model
}

fn config(class: &str, more: &str) -> String {
    format!(
        r#"{{"architectures": ["{class}"], "hidden_size": {HIDDEN}, "num_hidden_layers": 1,
            "num_attention_heads": {HEADS}, "num_key_value_heads": {KV_HEADS},
            "intermediate_size": 64, "vocab_size": 3{more}}}"#
    )
}

/// A small Llama.
fn llama() -> Checkpoint {
    Checkpoint::single([
        tensor("model.embed_tokens.weight", &[3, HIDDEN]),
        tensor("model.layers.0.self_attn.q_proj.weight", &[HIDDEN, HIDDEN]),
        tensor(
            "model.layers.0.self_attn.k_proj.weight",
            &[KV_HEADS * HEAD, HIDDEN],
        ),
        tensor(
            "model.layers.0.self_attn.v_proj.weight",
            &[KV_HEADS * HEAD, HIDDEN],
        ),
        tensor("model.layers.0.input_layernorm.weight", &[HIDDEN]),
        tensor("model.layers.0.self_attn.rotary_emb.inv_freq", &[HEAD / 2]),
    ])
    .config(&config("LlamaForCausalLM", ""))
    .aux("tokenizer.model", pieces())
}

fn request(base: &Path, kind: GgufKind) -> ViewRequest {
    let asked = GgufParams {
        kind: Some(kind),
        ..GgufParams::default()
    };
    ViewRequest::new(base).with(|operations| operations.gguf = asked)
}

/// The bytes of a tensor of the only file.
fn bytes_of(plan: &Plan, name: &str) -> Vec<u8> {
    let [file] = &plan.shards[..] else {
        panic!("one file");
    };
    let mut tensors = file.tensors.iter();
    let tensor = tensors.find(|tensor| &*tensor.name == name).expect(name);
    let bytes = read_file(&reader(plan), file.entry).unwrap();
    bytes[tensor.offset as usize..][..tensor.len as usize].to_vec()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

/// Row 2i + s of a head is its row s · d/2 + i before.
fn interleaved(values: &[f32], heads: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for head in 0..heads {
        for i in 0..HEAD / 2 {
            for s in 0..2 {
                let row = head * HEAD + s * HEAD / 2 + i;
                out.extend_from_slice(&values[row * HIDDEN..(row + 1) * HIDDEN]);
            }
        }
    }
    out
}

/// Q8_0 as it is defined: a scale of the largest magnitude, and codes rounded half away from zero.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in values.chunks(32) {
        let largest = block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let scale = largest / 127.0;
        bytes.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        bytes.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
    }
    bytes
}

#[test]
fn heads_are_interleaved_and_norms_are_f32() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let plan = request(&base, GgufKind::F32).plan().unwrap();
    assert_eq!(plan.shards[0].name, "tiny-F32.gguf");
    let of = |name: &str, rows: usize| values(name, rows * HIDDEN);
    for (name, expected) in [
        (
            "blk.0.attn_q.weight",
            interleaved(&of("model.layers.0.self_attn.q_proj.weight", HIDDEN), HEADS),
        ),
        (
            "blk.0.attn_k.weight",
            interleaved(
                &of("model.layers.0.self_attn.k_proj.weight", KV_HEADS * HEAD),
                KV_HEADS,
            ),
        ),
        (
            "blk.0.attn_v.weight",
            of("model.layers.0.self_attn.v_proj.weight", KV_HEADS * HEAD),
        ),
        (
            "blk.0.attn_norm.weight",
            of("model.layers.0.input_layernorm.weight", 1),
        ),
    ] {
        assert_eq!(f32s(&bytes_of(&plan, name)), expected, "{name}");
    }
    let mut names = plan.shards[0].tensors.iter().map(|tensor| &*tensor.name);
    assert!(!names.any(|name| name.contains("inv_freq")));
}

#[test]
fn blocks_are_those_of_the_definition() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let plan = request(&base, GgufKind::Q8_0).plan().unwrap();
    let queries = values("model.layers.0.self_attn.q_proj.weight", HIDDEN * HIDDEN);
    assert_eq!(
        bytes_of(&plan, "blk.0.attn_q.weight"),
        q8_0(&interleaved(&queries, HEADS))
    );
    let mut tensors = plan.shards[0].tensors.iter();
    let queries = tensors
        .find(|tensor| &*tensor.name == "blk.0.attn_q.weight")
        .unwrap();
    assert_eq!(queries.type_name(), "Q8_0");
    assert_eq!(queries.elements()[..], [HIDDEN as u64, HIDDEN as u64]);
}

#[test]
fn what_stays_in_its_dtype_and_order_is_a_range_of_the_source() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let plan = request(&base, GgufKind::Auto).plan().unwrap();
    assert_eq!(plan.shards[0].name, "tiny-BF16.gguf");
    for tensor in &plan.shards[0].tensors {
        let is_changed = ["attn_norm"].iter().any(|part| tensor.name.contains(part));
        assert_eq!(tensor.computed, is_changed, "{}", tensor.name);
    }
}

#[test]
fn what_no_file_can_be_made_of_is_an_error() {
    let workspace = Workspace::new();
    let refused = |name: &str, checkpoint: &Checkpoint| {
        let base = workspace.write(name, checkpoint);
        let error = request(&base, GgufKind::Q4_0)
            .plan()
            .expect_err("it is refused");
        (error.code(), error.to_string())
    };
    let other = llama().config(&config("OtherForCausalLM", ""));
    let (code, message) = refused("other", &other);
    assert_eq!(code, Code::UnknownArchitecture);
    assert!(message.contains("OtherForCausalLM") && message.contains("Qwen3MoeForCausalLM"));
    let mute = Checkpoint::single([tensor("model.embed_tokens.weight", &[3, HIDDEN])])
        .config(&config("LlamaForCausalLM", ""));
    assert_eq!(refused("mute", &mute).0, Code::BadTokenizer);
    let strange = Checkpoint::single([tensor("model.strange.weight", &[3, HIDDEN])])
        .config(&config("LlamaForCausalLM", ""))
        .aux("tokenizer.model", pieces());
    assert_eq!(refused("strange", &strange).0, Code::UnsupportedTensor);
    let moe = Checkpoint::single([tensor(
        "model.layers.0.block_sparse_moe.experts.1.w1.weight",
        &[32, HIDDEN],
    )])
    .config(&config("MixtralForCausalLM", r#", "num_local_experts": 2"#))
    .aux("tokenizer.model", pieces());
    assert_eq!(refused("moe", &moe).0, Code::ExpertsIncomplete);
}

#[test]
fn settings_of_gguf_need_gguf() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let asked = GgufParams {
        pre: Some("llama-bpe".to_owned()),
        ..GgufParams::default()
    };
    let request = ViewRequest::new(&base).with(|operations| operations.gguf = asked);
    assert_eq!(request.plan().unwrap_err().code(), Code::Conflict);
}

#[test]
fn split_files_hold_every_tensor_once() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let mut request = request(&base, GgufKind::F32);
    let size = ckptfs::ops::Value::Text("3000".to_owned());
    request.set("gguf_split", size).unwrap();
    let plan = request.plan().unwrap();
    let names: Vec<&str> = plan.shards.iter().map(|file| &*file.name).collect();
    let count = names.len();
    assert!(count > 1);
    for (i, name) in names.iter().enumerate() {
        assert_eq!(*name, format!("tiny-F32-{:05}-of-{count:05}.gguf", i + 1));
    }
    let tensors: usize = plan.shards.iter().map(|file| file.tensors.len()).sum();
    assert_eq!(tensors, 5);
    for file in &plan.shards {
        let bytes: u64 = file.tensors.iter().map(|tensor| tensor.len).sum();
        assert!(bytes <= 3000 || file.tensors.len() == 1);
    }
}

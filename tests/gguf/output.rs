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

pub(crate) const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = HIDDEN / HEADS;

pub(crate) fn values(name: &str, count: usize) -> Vec<f32> {
    let seed: usize = name.bytes().map(usize::from).sum();
    let value = |i: usize| bf16::from_f32(((i * 7919 + seed * 31) % 1009) as f32 / 300.0 - 1.5);
    (0..count).map(|i| value(i).to_f32()).collect()
}

pub(crate) fn tensor(name: &str, shape: &[usize]) -> TensorData {
    let values = values(name, shape.iter().product());
    of_values(name, Dtype::BF16, shape, &values)
}

/// A tokenizer.model of three pieces, by hand.
pub(crate) fn pieces() -> Vec<u8> {
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

pub(crate) fn config(class: &str, more: &str) -> String {
    format!(
        r#"{{"architectures": ["{class}"], "hidden_size": {HIDDEN}, "num_hidden_layers": 1,
            "num_attention_heads": {HEADS}, "num_key_value_heads": {KV_HEADS},
            "intermediate_size": 64, "vocab_size": 3{more}}}"#
    )
}

/// A small Llama.
pub(crate) fn llama() -> Checkpoint {
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
pub(crate) fn bytes_of(plan: &Plan, name: &str) -> Vec<u8> {
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
pub(crate) fn interleaved(values: &[f32], heads: usize) -> Vec<f32> {
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

/// What the tables of docs/GGUF.md say of gpt-oss, element by element: codes keep their scales, and of two
/// rows of `gate_up_proj` the first is the gate's.
#[test]
fn experts_in_mxfp4_keep_their_codes() {
    let (experts, columns) = (2, 64);
    let shapes = [("down_proj", 32), ("gate_up_proj", 6)];
    let code = |seed: usize| (seed * 7919 % 251) as u8;
    let mut tensors = vec![tensor("model.embed_tokens.weight", &[3, HIDDEN])];
    for (part, rows) in shapes {
        let name = format!("model.layers.0.mlp.experts.{part}");
        let blocks = experts * rows * columns / 32;
        let codes = (0..blocks * 16).map(|i| code(i + rows)).collect();
        let scales = (0..blocks).map(|i| code(3 * i + rows)).collect();
        let shape = [experts, rows, columns / 32, 16];
        tensors.push(TensorData::new(
            &format!("{name}_blocks"),
            Dtype::U8,
            &shape,
            codes,
        ));
        tensors.push(TensorData::new(
            &format!("{name}_scales"),
            Dtype::U8,
            &shape[..3],
            scales,
        ));
    }
    let checkpoint = Checkpoint::single(tensors)
        .config(&config(
            "GptOssForCausalLM",
            r#", "head_dim": 8, "num_local_experts": 2"#,
        ))
        .aux(
            "tokenizer.json",
            r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}}"#,
        );
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &checkpoint);
    let request = request(&base, GgufKind::Bf16).with(|operations| {
        operations.gguf.pre = Some("gpt-4o".to_owned());
    });
    let plan = request.plan().unwrap();
    for (name, (part, rows), first, step) in [
        ("ffn_down_exps", shapes[0], 0, 1),
        ("ffn_gate_exps", shapes[1], 0, 2),
        ("ffn_up_exps", shapes[1], 1, 2),
    ] {
        let found = bytes_of(&plan, &format!("blk.0.{name}.weight"));
        let mut blocks = found.chunks(17);
        for expert in 0..experts {
            for row in (first..rows).step_by(step) {
                for at in 0..columns / 32 {
                    let source = (expert * rows + row) * columns / 32 + at;
                    let block = blocks.next().unwrap_or_else(|| panic!("{name} is short"));
                    assert_eq!(block[0], code(3 * source + rows), "{part}");
                    for element in 0..32 {
                        let byte = code(source * 16 + element / 2 + rows);
                        let expected = byte >> (4 * (element % 2)) & 15;
                        let found = block[1 + element % 16] >> (4 * (element / 16)) & 15;
                        assert_eq!(found, expected, "{name}, expert {expert}, row {row}");
                    }
                }
            }
        }
        assert_eq!(blocks.next(), None, "{name}");
    }
}

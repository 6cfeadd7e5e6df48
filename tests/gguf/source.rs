//! A GGUF file as a source: numbers, files beside them, and what is refused.

use std::fs;
use std::path::Path;

use ckptfs::error::Code;
use ckptfs::ops::{GraftParams, GraftRequest, Operations, PatchParams, Precision};
use ckptfs::recipe::{Plan, ViewRequest};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::bytes::{Gguf, string, u32_value, value};
use crate::common::Workspace;
use crate::common::checkpoint::Checkpoint;
use crate::common::readback::{read_path, tensors};
use crate::model::{Model, Values, like, permuted, plan, request, write};

fn json_of(plan: &Plan, name: &str) -> Value {
    let text = read_path(plan, name).unwrap_or_else(|| panic!("the view has {name}"));
    serde_json::from_slice(&text).unwrap()
}

fn refusal(base: &Path) -> (Code, String) {
    let error = request(base, None, None).plan().expect_err("it is refused");
    (error.code(), error.to_string())
}

/// A small Qwen3 with everything that a view needs.
fn qwen3() -> Model {
    let mut model = Model::new("qwen3", 16, 4, 2).with_tokenizer();
    model.number("qwen3.attention.key_length", 8);
    model.same(
        "model.layers.0.self_attn.q_proj.weight",
        "blk.0.attn_q.weight",
        &[32, 16],
    );
    model.same(
        "model.layers.0.self_attn.q_norm.weight",
        "blk.0.attn_q_norm.weight",
        &[8],
    );
    model.same("model.norm.weight", "output_norm.weight", &[16]);
    model
}

/// Blocks of Q8_0: a scale in F16 and 32 codes, each a row of `columns / 32` of them.
fn q8_0(rows: usize, columns: usize) -> (Vec<u8>, Values) {
    let mut bytes = Vec::new();
    let mut values = Vec::new();
    for block in 0..rows * columns / 32 {
        let scale = f16::from_f32(0.001 * (block + 1) as f32);
        bytes.extend(scale.to_le_bytes());
        for i in 0..32 {
            let code = ((block * 37 + i * 11) % 255) as i32 - 127;
            bytes.push(code as i8 as u8);
            values.push(scale.to_f32() * code as f32);
        }
    }
    let shape = vec![rows, columns];
    (bytes, Values { shape, values })
}

#[test]
fn blocks_become_numbers_of_the_dtype_asked_for_and_plain_numbers_stay() {
    let workspace = Workspace::new();
    let like = like(workspace.path());
    let model = Model::new("llama", 64, 4, 2);
    let (bytes, values) = q8_0(64, 64);
    let half: Vec<u8> = (0..64)
        .flat_map(|i| f16::from_f32(i as f32 / 7.0).to_le_bytes())
        .collect();
    // Rows of blocks in the order of interleaved rotary embeddings: 68 bytes each.
    let rows = Values {
        shape: vec![64, 1],
        values: (0..64).map(|i| i as f32).collect(),
    };
    let order = permuted(&rows, 4).values;
    let moved: Vec<u8> = order
        .iter()
        .flat_map(|&row| bytes[row as usize * 68..][..68].to_vec())
        .collect();
    let gguf = model
        .file()
        .tensor("blk.0.attn_v.weight", 8, &[64, 64], &bytes)
        .tensor("blk.0.attn_q.weight", 8, &[64, 64], &moved)
        .tensor("blk.0.attn_norm.weight", 1, &[64], &half);
    let path = write(workspace.path(), "model.gguf", &gguf);
    for dtype in [
        None,
        Some(Precision::Bf16),
        Some(Precision::F16),
        Some(Precision::F32),
    ] {
        let found = tensors(&plan(&path, dtype, Some(&like)));
        let rounded: Vec<u8> = match dtype {
            None | Some(Precision::Bf16) => values
                .values
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
            Some(Precision::F16) => values
                .values
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
            Some(Precision::F32) => values.bytes(),
        };
        for name in ["v_proj", "q_proj"] {
            let tensor = &found[&format!("model.layers.0.self_attn.{name}.weight")];
            assert_eq!(tensor.dtype, dtype.unwrap_or(Precision::Bf16).dtype());
            assert_eq!(tensor.shape, [64, 64]);
            assert!(*tensor.bytes == *rounded, "{name} as {dtype:?}");
        }
        let norm = &found["model.layers.0.input_layernorm.weight"];
        if dtype.is_none() {
            assert_eq!((norm.dtype, &*norm.bytes), (Dtype::F16, &*half));
        } else {
            assert_eq!(Some(norm.dtype), dtype.map(Precision::dtype));
        }
    }
}

#[test]
fn config_and_tokenizer_follow_from_metadata() {
    let workspace = Workspace::new();
    let plan = plan(&qwen3().write(workspace.path()), None, None);
    let config = json_of(&plan, "config.json");
    let expected = json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 8,
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": null, "tie_word_embeddings": true, "eos_token_id": 4,
        "attention_bias": false, "torch_dtype": "float32",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    assert_eq!(
        json_of(&plan, "generation_config.json"),
        json!({"eos_token_id": 4})
    );
    let tokenizer = json_of(&plan, "tokenizer.json");
    let model = &tokenizer["model"];
    let vocabulary = json!({"a": 0, "b": 1, "c": 2, "ab": 3, "<|end|>": 4, "<tool>": 5});
    assert_eq!(
        model["vocab"], vocabulary,
        "what only fills up rows is no token"
    );
    assert_eq!(model["merges"], json!([["a", "b"]]));
    let added: Vec<_> = tokenizer["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| {
            (
                token["id"].as_u64(),
                token["content"].as_str(),
                token["special"].as_bool(),
            )
        })
        .collect();
    let expected = [
        (Some(4), Some("<|end|>"), Some(true)),
        (Some(5), Some("<tool>"), Some(false)),
    ];
    assert_eq!(added, expected);
    let config = json_of(&plan, "tokenizer_config.json");
    assert_eq!(config["eos_token"], "<|end|>");
    assert_eq!(config["chat_template"], "{{ messages }}");
    assert_eq!(config["add_bos_token"], false);
}

#[test]
fn files_of_another_directory_take_the_place_of_what_would_be_made() {
    let workspace = Workspace::new();
    let like = like(workspace.path());
    // This one has no tokenizer, so nothing could be made of it.
    let base = Model::new("qwen3", 16, 4, 2).write(workspace.path());
    let plan = plan(&base, None, Some(&like));
    let mut names: Vec<String> = plan
        .view
        .files()
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "config.json",
            "model-00001-of-00001.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json"
        ]
    );
    assert_eq!(read_path(&plan, "tokenizer.json").unwrap(), b"{}\n");
    let (code, message) = refusal(&base);
    assert_eq!(code, Code::UnknownGguf);
    assert!(
        message.contains("tokenizer.ggml.model is missing") && message.contains("like: DIR"),
        "{message}"
    );
}

#[test]
fn a_directory_of_one_model_and_split_files_are_the_same_view() {
    let workspace = Workspace::new();
    let model = qwen3();
    let whole = tensors(&plan(&model.write(workspace.path()), None, None));
    let split = workspace.path().join("split");
    fs::create_dir(&split).unwrap();
    for number in 0..2u16 {
        let mut file = Gguf::default();
        if number == 0 {
            file.keys = model.keys.clone();
        }
        file = file
            .key("split.no", value(2, &number.to_le_bytes()))
            .key("split.count", value(2, &2u16.to_le_bytes()))
            .key("split.tensors.count", value(5, &4i32.to_le_bytes()));
        for (name, values) in &model.gguf[usize::from(number) * 2..][..2] {
            let dimensions: Vec<u64> = values.shape.iter().rev().map(|d| *d as u64).collect();
            file = file.tensor(name, 0, &dimensions, &values.bytes());
        }
        write(
            &split,
            &format!("m-0000{}-of-00002.gguf", number + 1),
            &file,
        );
    }
    fs::write(split.join("README.md"), "read").unwrap();
    fs::write(split.join("mmproj-m.gguf"), "a vision part").unwrap();
    for base in [split.clone(), split.join("m-00002-of-00002.gguf")] {
        let plan = plan(&base, None, None);
        assert!(tensors(&plan) == whole, "{}", base.display());
        assert_eq!(read_path(&plan, "README.md").is_some(), base == split);
    }
    fs::copy(
        split.join("m-00001-of-00002.gguf"),
        split.join("other.gguf"),
    )
    .unwrap();
    let (code, message) = refusal(&split);
    assert_eq!(code, Code::NoCheckpoint);
    assert!(
        message.contains("several GGUF models") && message.contains("other.gguf"),
        "{message}"
    );
    let (code, message) = refusal(&split.join("other.gguf"));
    assert_eq!(code, Code::IndexMismatch);
    assert!(message.contains("split.count"), "{message}");
    fs::remove_file(split.join("m-00002-of-00002.gguf")).unwrap();
    let (code, message) = refusal(&split.join("m-00001-of-00002.gguf"));
    assert_eq!(code, Code::MissingShard);
    assert!(message.contains("m-00002-of-00002.gguf"), "{message}");
}

#[test]
fn tensors_are_grafted_and_added_from_gguf_files() {
    let workspace = Workspace::new();
    let model = qwen3();
    let file = model.write(workspace.path());
    let embedding = &model.hf["model.embed_tokens.weight"];
    let zeros = Values::new(&[8, 16], 0).map(|_| 0.0);
    let base = Checkpoint::single(vec![crate::common::checkpoint::TensorData::new(
        "model.embed_tokens.weight",
        Dtype::F32,
        &[8, 16],
        zeros.bytes(),
    )]);
    let base = workspace.write("base", &base);
    let graft = GraftRequest {
        source: (&file).into(),
        names: Some("model.embed_tokens.weight".to_owned()),
    };
    let request = ViewRequest {
        operations: Operations {
            graft: GraftParams {
                grafts: vec![graft],
            },
            patch: PatchParams {
                extras: vec![(&file).into()],
            },
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    let found = tensors(&request.plan().unwrap());
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        model.hf.keys().collect::<Vec<_>>()
    );
    assert_eq!(
        *found["model.embed_tokens.weight"].bytes,
        *embedding.bytes()
    );
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let workspace = Workspace::new();
    let at = |name: &str, file: &Gguf| write(workspace.path(), name, file);
    let model = Model::new("llama", 16, 4, 2).with_tokenizer();
    let unknown = Gguf::default().key("general.architecture", string("rwkv9"));
    let matrix = Gguf::default()
        .key("general.type", string("imatrix"))
        .key("general.architecture", string("llama"));
    let mut array_of_heads = Model::new("llama", 16, 4, 2);
    for (key, value) in &mut array_of_heads.keys {
        if key == "llama.attention.head_count_kv" {
            *value = crate::bytes::array(4, 2, &[2, 0, 0, 0, 1, 0, 0, 0]);
        }
    }
    array_of_heads.same(
        "model.layers.0.self_attn.k_proj.weight",
        "blk.0.attn_k.weight",
        &[8, 16],
    );
    let cases = [
        (
            unknown,
            Code::UnknownGguf,
            "\"rwkv9\" cannot be read; the architectures that can be read are llama",
        ),
        (matrix, Code::UnknownGguf, "general.type is \"imatrix\""),
        (
            Gguf::default(),
            Code::UnknownGguf,
            "general.architecture is missing",
        ),
        (
            model.file().tensor("blk.0.attn_x.weight", 0, &[2], &[0; 8]),
            Code::UnsupportedTensor,
            "llama has no such tensor",
        ),
        (
            model
                .file()
                .tensor("blk.0.ffn_up.weight", 16, &[256], &[0; 66]),
            Code::UnsupportedTensor,
            "it is IQ2_XXS; only F32",
        ),
        (
            model
                .file()
                .tensor("blk.0.ffn_up_exps.weight", 0, &[2], &[0; 8]),
            Code::UnsupportedTensor,
            "experts",
        ),
        (
            model
                .file()
                .tensor("blk.0.attn_q.weight", 0, &[16, 6], &[0; 384]),
            Code::UnsupportedTensor,
            "divided by 4",
        ),
        (
            array_of_heads.file(),
            Code::BadMetadata,
            "llama.attention.head_count_kv is not a whole number, or layers differ in it",
        ),
        (
            model.file().key("llama.rope.dimension_count", u32_value(2)),
            Code::UnknownGguf,
            "only 2 of the 4 dimensions of a head are rotated",
        ),
        (
            model
                .file()
                .key("llama.rope.scaling.type", string("longrope")),
            Code::UnknownGguf,
            "longrope",
        ),
        (
            model
                .file()
                .key("tokenizer.ggml.bos_token_id", u32_value(8)),
            Code::BadMetadata,
            "bos_token_id is 8, and there are 8 tokens",
        ),
    ];
    for (i, (file, code, expected)) in cases.into_iter().enumerate() {
        let (found, message) = refusal(&at(&format!("{i}.gguf"), &file));
        assert!(message.contains(expected), "{expected}: {message}");
        assert_eq!(found, code, "{message}");
    }
}

#[test]
fn rope_factors_of_llama_3_become_rope_scaling() {
    let (factor, head, theta) = (8.0f64, 64usize, 500_000.0f64);
    // As the converter computes them of the model's config.
    let factors: Vec<f32> = (0..head / 2)
        .map(|i| {
            let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / head as f64);
            let smooth = ((8192.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
        })
        .collect();
    let mut model = Model::new("llama", 128, 2, 2).with_tokenizer();
    model.key(
        "llama.rope.freq_base",
        crate::bytes::f32_value(theta as f32),
    );
    let values = Values {
        shape: vec![head / 2],
        values: factors,
    };
    model.only_gguf("rope_freqs.weight", values.clone());
    let workspace = Workspace::new();
    let plan = plan(&model.write(workspace.path()), None, None);
    let scaling = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(json_of(&plan, "config.json")["rope_scaling"], scaling);
    let mut other = Model::new("llama", 128, 2, 2).with_tokenizer();
    other.only_gguf("rope_freqs.weight", values.map(|f| f * f));
    let (code, message) = refusal(&other.write(workspace.path()));
    assert_eq!(code, Code::UnknownGguf);
    assert!(
        message.contains("rope_freqs.weight has other factors"),
        "{message}"
    );
}

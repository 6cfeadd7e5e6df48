//! Importance matrices: what both forms say, what is refused, and what weights of columns change.

use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::error::Code;
use ckptfs::format::gguf::{Value, read_header};
use ckptfs::format::imatrix::{Imatrix, read};
use ckptfs::kernels::CpuPath;
use ckptfs::kernels::ggml::{Type, encode_row};
use ckptfs::ops::{GgufKind, GgufParams};
use ckptfs::provenance::Lineage;
use ckptfs::recipe::{Plan, ViewRequest};

use crate::bytes::{Gguf, file, strings, u32_value};
use crate::common::Workspace;
use crate::common::checkpoint::Checkpoint;
use crate::common::readback::read_path;
use crate::output::{HIDDEN, bytes_of, config, interleaved, llama, pieces, tensor, values};

/// A matrix: its name, sums, and counts.
pub(crate) type Entry = (&'static str, Vec<f32>, Vec<f32>);

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn in_gguf(entries: &[Entry]) -> Gguf {
    let start = Gguf::default()
        .key("imatrix.datasets", strings(&["some text", "more"]))
        .key("imatrix.chunk_count", u32_value(5))
        .key("imatrix.chunk_size", u32_value(512));
    entries.iter().fold(start, |file, (name, sums, counts)| {
        let (len, experts) = (sums.len() as u64, counts.len() as u64);
        file.tensor(
            &format!("{name}.in_sum2"),
            0,
            &[len / experts, experts],
            &bytes(sums),
        )
        .tensor(&format!("{name}.counts"), 0, &[1, experts], &bytes(counts))
    })
}

pub(crate) fn older(entries: &[Entry]) -> Vec<u8> {
    let number = |n: usize| (n as i32).to_le_bytes();
    let mut file = number(entries.len()).to_vec();
    for (name, sums, counts) in entries {
        file.extend(number(name.len()));
        file.extend(name.as_bytes());
        file.extend(number(counts[0] as usize));
        file.extend(number(sums.len()));
        file.extend(bytes(sums));
    }
    file.extend(number(5));
    file.extend(number(4));
    file.extend(b"text");
    file
}

fn entries() -> Vec<Entry> {
    vec![
        ("blk.0.attn_q.weight", vec![1.0, 2.0, 3.0], vec![4.0]),
        ("blk.0.ffn_up_exps.weight", vec![8.0; 6], vec![2.0]),
    ]
}

fn opened(bytes: &[u8]) -> ckptfs::Result<Imatrix> {
    let workspace = Workspace::new();
    read(file(workspace.path(), "imatrix.dat", bytes))
}

#[test]
fn both_forms_say_the_same() {
    let forms = [in_gguf(&entries()).bytes(), older(&entries())];
    for (form, dataset) in forms.iter().zip(["some text", "text"]) {
        let workspace = Workspace::new();
        let blob = file(workspace.path(), "imatrix", form);
        let found = read(blob.clone()).unwrap();
        assert_eq!(found.dataset.as_deref(), Some(dataset));
        assert_eq!(found.chunks, Some(5));
        assert_eq!(found.matrices.len(), 2);
        for (name, sums, counts) in entries() {
            let matrix = &found.matrices[name];
            assert_eq!(*matrix.counts, *counts, "{name}");
            let stored = &found.shard.tensors[&matrix.sums];
            let mut read = vec![0; stored.len as usize];
            blob.read_at(&mut read, stored.offset).unwrap();
            assert_eq!(read, bytes(&sums), "{name}");
        }
    }
}

#[test]
fn what_is_no_importance_matrix_is_refused() {
    let whole = older(&entries());
    let with = |at: usize, number: i32| {
        let mut file = whole.clone();
        file[at..at + 4].copy_from_slice(&number.to_le_bytes());
        file
    };
    let name_ends = 8 + "blk.0.attn_q.weight".len();
    let gguf = |change: fn(&mut Gguf)| {
        let mut file = in_gguf(&entries());
        change(&mut file);
        file.bytes()
    };
    let of = |sums: Vec<f32>, counts: Vec<f32>| in_gguf(&[("a", sums, counts)]).bytes();
    let cases: [(Vec<u8>, Code, &str); 17] = [
        (vec![], Code::BadImatrix, "no matrices"),
        (with(0, 0), Code::BadImatrix, "neither GGUF"),
        (with(0, -1), Code::BadImatrix, "neither GGUF"),
        (with(0, i32::MAX), Code::BadImatrix, "neither GGUF"),
        (with(4, 0), Code::BadImatrix, "1 to 63 bytes"),
        (with(4, 1 << 20), Code::BadImatrix, "1 to 63 bytes"),
        (with(name_ends + 4, 0), Code::BadImatrix, "0 columns"),
        (with(name_ends + 4, -7), Code::BadImatrix, "-7 columns"),
        (with(name_ends + 4, i32::MAX), Code::Truncated, "claims"),
        (
            whole[..whole.len() - 13].to_vec(),
            Code::Truncated,
            "claims",
        ),
        (
            Gguf::default().bytes(),
            Code::BadImatrix,
            "imatrix.datasets",
        ),
        (
            gguf(|file| file.keys[1].1 = strings(&["x"])),
            Code::BadImatrix,
            "type u32",
        ),
        (
            gguf(|file| file.tensors.truncate(3)),
            Code::BadImatrix,
            "go together",
        ),
        (
            gguf(|file| file.tensors.clear()),
            Code::BadImatrix,
            "no matrices",
        ),
        (
            gguf(|file| file.tensors[0].id = 26),
            Code::BadImatrix,
            "must be F32",
        ),
        (
            of(vec![1.0; 3], vec![f32::NAN]),
            Code::BadImatrix,
            "not finite",
        ),
        (
            gguf(|file| file.tensors[1].dimensions = vec![2]),
            Code::BadImatrix,
            "3 sums and 2 counts",
        ),
    ];
    for (file, code, text) in cases {
        let error = match opened(&file) {
            Ok(_) => panic!("it is read, and should be refused: {text}"),
            Err(error) => error,
        };
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{text}: {error}");
        assert!(error.to_string().contains("imatrix.dat"), "{error}");
    }
}

/// A small Mixtral of two experts.
fn mixtral() -> Checkpoint {
    let expert = |expert: usize, part: usize, shape: &[usize]| {
        let name = format!("model.layers.0.block_sparse_moe.experts.{expert}.w{part}.weight");
        tensor(&name, shape)
    };
    let mut tensors = vec![tensor("model.embed_tokens.weight", &[3, HIDDEN])];
    for number in 0..2 {
        tensors.push(expert(number, 1, &[64, HIDDEN]));
        tensors.push(expert(number, 2, &[HIDDEN, 64]));
        tensors.push(expert(number, 3, &[64, HIDDEN]));
    }
    Checkpoint::single(tensors)
        .config(&config("MixtralForCausalLM", r#", "num_local_experts": 2"#))
        .aux("tokenizer.model", pieces())
}

pub(crate) fn planned(base: &Path, kind: GgufKind, imatrix: &Path) -> ckptfs::Result<Plan> {
    let asked = GgufParams {
        kind: Some(kind),
        imatrix: Some(imatrix.into()),
        ..GgufParams::default()
    };
    let request = ViewRequest::new(base).with(|operations| operations.gguf = asked);
    request.plan()
}

fn written(workspace: &Workspace, bytes: &[u8]) -> PathBuf {
    let path = workspace.path().join("weights.imatrix");
    fs::write(&path, bytes).unwrap();
    path
}

/// Rows as blocks by weights, row by row.
fn encoded(kind: Type, rows: &[f32], weights: Option<&[f32]>) -> Vec<u8> {
    let columns = weights.map_or(HIDDEN, <[f32]>::len);
    let encode = |row: &[f32]| {
        let mut blocks = vec![0; kind.row_bytes(columns).unwrap()];
        encode_row(kind, row, weights, &mut blocks, CpuPath::Scalar).unwrap();
        blocks
    };
    rows.chunks(columns).flat_map(encode).collect()
}

#[test]
fn every_expert_has_weights_of_its_own() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &mixtral());
    let sums: Vec<f32> = (0..2 * HIDDEN).map(|i| (i * i) as f32).collect();
    // Nothing was counted for the second: all its columns weigh 1.
    let entry: Entry = ("blk.0.ffn_gate_exps.weight", sums.clone(), vec![3.0, 0.0]);
    let imatrix = written(&workspace, &in_gguf(&[entry]).bytes());
    let plan = planned(&base, GgufKind::Q4_0, &imatrix).unwrap();
    let weights: Vec<f32> = sums[..HIDDEN].iter().map(|sum| sum / 3.0).collect();
    let of = |expert: usize, part: usize| {
        let name = format!("model.layers.0.block_sparse_moe.experts.{expert}.w{part}.weight");
        values(&name, 64 * HIDDEN)
    };
    let expected = [
        encoded(Type::Q4_0, &of(0, 1), Some(&weights)),
        encoded(Type::Q4_0, &of(1, 1), Some(&[1.0; HIDDEN])),
    ];
    assert_eq!(
        bytes_of(&plan, "blk.0.ffn_gate_exps.weight"),
        expected.concat()
    );
    // It has no weights for these.
    let plain = [
        encoded(Type::Q4_0, &of(0, 3), None),
        encoded(Type::Q4_0, &of(1, 3), None),
    ];
    assert_eq!(bytes_of(&plan, "blk.0.ffn_up_exps.weight"), plain.concat());
}

#[test]
fn keys_and_provenance_name_the_file() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let sums: Vec<f32> = (0..HIDDEN).map(|i| 1.0 + i as f32).collect();
    let entries: [Entry; 2] = [
        ("blk.0.attn_q.weight", sums.clone(), vec![2.0]),
        // Another number than the embedding has columns: as good as missing.
        ("token_embd.weight", vec![1.0; 3], vec![1.0]),
    ];
    let imatrix = written(&workspace, &older(&entries));
    let plan = planned(&base, GgufKind::Q4_1, &imatrix).unwrap();
    let queries = values("model.layers.0.self_attn.q_proj.weight", HIDDEN * HIDDEN);
    let weights: Vec<f32> = sums.iter().map(|sum| sum / 2.0).collect();
    assert_eq!(
        bytes_of(&plan, "blk.0.attn_q.weight"),
        encoded(Type::Q4_1, &interleaved(&queries, 4), Some(&weights))
    );
    let bytes = read_path(&plan, "tiny-Q4_1.gguf").unwrap();
    let header = read_header(&*file(workspace.path(), "out.gguf", &bytes)).unwrap();
    let last: Vec<_> = header.keys.iter().rev().take(4).collect();
    let name = |end: &str| format!("quantize.imatrix.{end}");
    assert_eq!(
        last[3],
        (&name("file"), &Value::String("weights.imatrix".into()))
    );
    assert_eq!(last[2], (&name("dataset"), &Value::String("text".into())));
    assert_eq!(last[1], (&name("entries_count"), &Value::U32(2)));
    assert_eq!(last[0], (&name("chunks_count"), &Value::U32(5)));
    let tensors = &plan.shards[0].tensors;
    let lineage = |name: &str| {
        let tensor = tensors.iter().find(|tensor| &*tensor.name == name);
        serde_json::to_value(Lineage::trace(&plan, tensor.unwrap())).unwrap()
    };
    let of_queries = lineage("blk.0.attn_q.weight").to_string();
    assert!(of_queries.contains("weights.imatrix"), "{of_queries}");
    assert!(
        !lineage("blk.0.attn_v.weight")
            .to_string()
            .contains("weights.imatrix")
    );
}

#[test]
fn what_does_not_go_with_the_model_is_refused() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let refused = |kind: GgufKind, entries: &[Entry]| {
        let imatrix = written(&workspace, &in_gguf(entries).bytes());
        let error = planned(&base, kind, &imatrix).expect_err("it is refused");
        (error.code(), error.to_string())
    };
    let good: Entry = ("blk.0.attn_q.weight", vec![1.0; HIDDEN], vec![1.0]);
    let short: Entry = ("blk.0.attn_q.weight", vec![1.0; HIDDEN - 1], vec![1.0]);
    let (code, message) = refused(GgufKind::Q4_0, &[short]);
    assert_eq!(code, Code::ImatrixMismatch);
    for part in ["weights.imatrix", "blk.0.attn_q.weight", "31", "32"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let other: Entry = ("blk.7.attn_q.weight", vec![1.0; HIDDEN], vec![1.0]);
    assert_eq!(refused(GgufKind::Q4_0, &[other]).0, Code::ImatrixMismatch);
    for wrong in [f32::NAN, f32::INFINITY, -1.0, 2e12] {
        let mut sums = vec![1.0; HIDDEN];
        sums[7] = wrong;
        let entry: Entry = ("blk.0.attn_q.weight", sums, vec![1.0]);
        let (code, message) = refused(GgufKind::Q4_0, &[entry]);
        assert_eq!(code, Code::BadImatrix);
        assert!(message.contains("column 7"), "{message}");
    }
    for kind in [GgufKind::F32, GgufKind::Auto] {
        assert_eq!(refused(kind, std::slice::from_ref(&good)).0, Code::Conflict);
    }
    let missing = workspace.path().join("missing.imatrix");
    let error = planned(&base, GgufKind::Q4_0, &missing).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

//! Differences of checkpoints and views, held against numbers worked out here.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};

use ckptfs::jobs::Progress;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{CONFIG, Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::command::{ckptfs, text};
use crate::common::oracle::casting::e4m3;
use crate::common::values::decode;
use crate::common::{Workspace, assert_names};

fn diff(workspace: &Workspace, arguments: &str) -> (i32, Output) {
    let output = ckptfs(workspace, &format!("diff {arguments}"));
    (output.status.code().unwrap(), output)
}

fn json_of(workspace: &Workspace, arguments: &str) -> (i32, Value) {
    let (code, output) = diff(workspace, &format!("{arguments} --json"));
    (code, serde_json::from_slice(&output.stdout).unwrap())
}

fn of<'a>(json: &'a Value, name: &str) -> &'a Value {
    let different = json["different"].as_array().unwrap();
    let found = different.iter().find(|tensor| tensor["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not different: {json}"))
}

/// The figures of the difference of two lists of numbers.
fn figures(a: &[f64], b: &[f64]) -> [f64; 4] {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let norm = |numbers: &[f64]| numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
    let differing = differences.iter().filter(|d| **d != 0.0).count();
    let largest = differences.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
    [differing as f64, largest, norm(&differences), norm(a)]
}

fn assert_figures(values: &Value, expected: [f64; 4]) {
    let keys = ["differing", "max_abs", "l2", "norm_a"];
    for (key, expected) in keys.into_iter().zip(expected) {
        let found = values[key].as_f64().unwrap();
        let tolerance = 1e-12 * expected.abs();
        assert!(
            (found - expected).abs() <= tolerance,
            "{key}: {found}, not {expected}"
        );
    }
}

fn numbers(data: &TensorData) -> Vec<f64> {
    decode(data.dtype, &data.bytes)
        .into_iter()
        .map(f64::from)
        .collect()
}

#[test]
fn a_checkpoint_is_equal_to_itself_its_copy_and_its_view() {
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::new()
        .shard("odd.safetensors", [bf16("a.0.w", &[3, 5]), bf16("b", &[0])])
        .aux("tokenizer.json", "{}")
        .aux("deep/er/file", "x");
    let base = workspace.write("a", &checkpoint);
    workspace.write("b", &checkpoint);
    fs::write(
        workspace.path().join("view.yml"),
        format!("base: {}\nview: {{repack: true}}\n", base.display()),
    )
    .unwrap();
    for arguments in ["a a", "a b", "a view.yml", "view.yml b", "a b --no-values"] {
        let (code, output) = diff(&workspace, arguments);
        assert_eq!(
            code,
            0,
            "{arguments}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        assert_names(text(&output.stdout), &["2 equal", "0 different"]);
    }
}

#[test]
fn every_kind_of_difference_is_told() {
    let workspace = Workspace::new();
    let same = bf16("same", &[4]);
    let mut far = vec![0.5f32; 600_000];
    let a = [
        same.clone(),
        bf16("gone", &[2]),
        bf16("reshaped", &[2, 3]),
        tensor("integers", Dtype::I32, &[3], 1),
        of_values("near.0.w", Dtype::F32, &[600_000], &far),
        of_values("cast", Dtype::F32, &[3], &[1.0, 2.5, 1.001]),
        of_values(
            "wild",
            Dtype::F32,
            &[4],
            &[1.0, f32::NAN, f32::INFINITY, 2.0],
        ),
    ];
    far[0] = 0.75;
    far[599_999] = -2.0;
    let b = [
        same,
        bf16("reshaped", &[3, 2]),
        tensor("integers", Dtype::I32, &[3], 2),
        of_values("near.0.w", Dtype::F32, &[600_000], &far),
        of_values("cast", Dtype::BF16, &[3], &[1.0, 2.5, 1.001]),
        of_values(
            "wild",
            Dtype::F32,
            &[4],
            &[f32::NAN, f32::NAN, f32::INFINITY, 4.0],
        ),
        bf16("new", &[1]),
    ];
    let near = figures(&numbers(&a[4]), &numbers(&b[3]));
    let cast = figures(&numbers(&a[5]), &numbers(&b[4]));
    let (a, b) = (Checkpoint::single(a), Checkpoint::single(b));
    workspace.write("a", &a.aux("old.txt", "x").aux("changed.txt", "x"));
    workspace.write("b", &b.aux("new.txt", "x").aux("changed.txt", "y"));
    let (code, json) = json_of(&workspace, "a b");
    assert_eq!(code, 1);
    assert_eq!(json["tensors"], json!([7, 7]));
    assert_eq!(json["equal"], 1);
    let what = |name: &str| of(&json, name)["what"].as_str().unwrap().to_owned();
    assert_eq!(
        (what("gone"), what("new")),
        ("removed".to_owned(), "added".to_owned())
    );
    assert_eq!(of(&json, "reshaped")["a"]["shape"], json!([2, 3]));
    assert_eq!(of(&json, "reshaped")["b"]["shape"], json!([3, 2]));
    for name in ["reshaped", "integers", "gone", "new"] {
        assert_eq!(of(&json, name)["values"], Value::Null, "{name}");
    }
    assert_figures(&of(&json, "near.0.w")["values"], near);
    assert_figures(&of(&json, "cast")["values"], cast);
    let wild = &of(&json, "wild")["values"];
    assert_figures(wild, [2.0, 2.0, 2.0, 2.0]);
    assert_eq!(wild["not_finite"], 1);
    assert_eq!(
        (&wild["nan"], &wild["infinite"]),
        (&json!([0, 1]), &json!([0, 0]))
    );
    let (_, shown) = diff(&workspace, "a b");
    assert_names(
        text(&shown.stdout),
        &["; 1 NaN in B, left out of these figures"],
    );
    let files: Vec<(&str, &str)> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            (
                file["path"].as_str().unwrap(),
                file["what"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        files,
        [
            ("changed.txt", "changed"),
            ("new.txt", "added"),
            ("old.txt", "removed")
        ]
    );

    let (code, json) = json_of(&workspace, "a b --no-values");
    assert_eq!(
        (code, &json["equal"], &json["values_compared"]),
        (1, &json!(4), &json!(false))
    );
}

#[test]
fn nan_and_infinity_are_the_finding_where_nothing_else_differs() {
    let workspace = Workspace::new();
    let write = |name: &str, values: [f32; 4]| {
        let tensor = of_values("w", Dtype::F32, &[4], &values);
        workspace.write(name, &Checkpoint::single([tensor]));
    };
    write("a", [1.0, 2.0, f32::NAN, 4.0]);
    write("b", [f32::NAN, f32::INFINITY, 3.0, 4.0]);
    let (code, output) = diff(&workspace, "a b");
    assert_eq!(code, 1);
    let line = "    3 of 4 elements differ: 1 NaN in A, 1 NaN in B, 1 infinity in B";
    let shown = text(&output.stdout);
    assert!(shown.lines().any(|found| found == line), "{shown}");
}

/// Bytes that a job says it has to do and did, in all of its parts.
#[derive(Default)]
struct Counted {
    announced: AtomicU64,
    done: AtomicU64,
}

impl Progress for Counted {
    fn start(&self, bytes: u64) {
        self.announced.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[test]
fn whatever_is_read_to_compare_counts_as_progress() {
    let workspace = Workspace::new();
    let values: Vec<f32> = (0..300_000).map(|i| i as f32).collect();
    let mut other = values.clone();
    other[0] = 0.5;
    let tensors = |near: &[f32], dtype: Dtype| {
        [
            of_values("cast", dtype, &[300_000], &values),
            of_values("near", Dtype::F32, &[300_000], near),
        ]
    };
    let a = Checkpoint::single(tensors(&values, Dtype::F32)).aux("large.bin", "x".repeat(5000));
    let b = Checkpoint::single(tensors(&other, Dtype::BF16)).aux("large.bin", "y".repeat(5000));
    let [a, b] = [workspace.write("a", &a), workspace.write("b", &b)];
    let [a, b] = [a, b].map(|path| ckptfs::diff::request(&path, &[]).unwrap().plan().unwrap());
    let counted = Counted::default();
    ckptfs::diff::diff([&a, &b], true, 2, &counted).unwrap();
    let announced = counted.announced.into_inner();
    let tensors = 300_000 * (4 + 2 + 4 + 4);
    assert!(announced >= tensors + 2 * 5000, "{announced}");
    assert_eq!(counted.done.into_inner(), announced);
}

#[test]
fn fp8_is_compared_by_the_numbers_it_stands_for() {
    let workspace = Workspace::new();
    let name = "model.layers.0.self_attn.q_proj.weight";
    let values: Vec<f32> = (0..130 * 130)
        .map(|i| ((i * 37) % 1001) as f32 / 999.0)
        .collect();
    let source = of_values(name, Dtype::F32, &[130, 130], &values);
    let base = workspace.write("a", &Checkpoint::single([source]).config(CONFIG));
    let recipe = format!("base: {}\nview: {{fp8: true}}\n", base.display());
    fs::write(workspace.path().join("view.yml"), recipe).unwrap();
    let written = ckptfs(&workspace, "materialize --recipe view.yml --out b");
    assert!(written.status.success(), "{}", text(&written.stderr));
    // The numbers that the files hold, by the definition of block FP8.
    let shard = fs::read(workspace.path().join("b/model.safetensors")).unwrap();
    let shard = safetensors::SafeTensors::deserialize(&shard).unwrap();
    let codes = shard.tensor(name).unwrap().data().to_vec();
    let scales = shard.tensor(&format!("{name}_scale_inv")).unwrap();
    let scales = decode(Dtype::F32, scales.data());
    let scale = |i: usize| f64::from(scales[i / 130 / 128 * 2 + i % 130 / 128]);
    let quantized = codes.iter().enumerate();
    let quantized: Vec<f64> = quantized.map(|(i, code)| e4m3(*code) * scale(i)).collect();
    let source: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    for other in ["view.yml", "b"] {
        let (code, json) = json_of(&workspace, &format!("a {other}"));
        assert_eq!(code, 1);
        assert_figures(&of(&json, name)["values"], figures(&source, &quantized));
        let keys = &json["files"][0]["keys"];
        assert_eq!(keys[0]["key"], "quantization_config");
        assert_eq!(keys[0]["a"], Value::Null);
        assert_eq!(keys[0]["b"]["quant_method"], "fp8");
    }
    let (code, _) = diff(&workspace, "view.yml b");
    assert_eq!(code, 0);
}

#[test]
fn layers_are_folded_and_errors_are_no_differences() {
    let workspace = Workspace::new();
    let layers = |seed: u64| {
        let name = |i: u64| format!("model.layers.{i}.up.weight");
        (0..12).map(move |i| tensor(&name(i), Dtype::BF16, &[4, 4], 10 * i + seed))
    };
    workspace.write("a", &Checkpoint::single(layers(1)));
    workspace.write("b", &Checkpoint::single(layers(2)));
    let (code, output) = diff(&workspace, "a b");
    assert_eq!(code, 1);
    let line = "changed  model.layers.{0..11}.up.weight  12 × BF16 [4, 4]";
    assert!(
        text(&output.stdout).lines().any(|found| found == line),
        "{output:?}"
    );
    for arguments in ["a nothing", "nothing a", "a a --what"] {
        let (code, output) = diff(&workspace, arguments);
        assert_eq!(code, 2, "{arguments}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let shard = workspace.path().join("b/model.safetensors");
    truncate(&shard);
    let (code, output) = diff(&workspace, "a b");
    assert_eq!(code, 2);
    assert_names(
        text(&output.stderr),
        &["model.safetensors", "download complete"],
    );
}

fn truncate(path: &Path) {
    let len = fs::metadata(path).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len - 1)
        .unwrap();
}

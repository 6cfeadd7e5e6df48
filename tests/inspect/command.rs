//! `ckptfs inspect`: tables, JSON, exit codes.

use std::process::Output;

use ckptfs::quant::fp8_block::ScaleFormat;
use safetensors::Dtype;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::command::{self, ckptfs, text};
use crate::common::{Workspace, assert_names};
use crate::naive::{Naive, assert_close};

fn run(workspace: &Workspace, flags: &str) -> Output {
    ckptfs(workspace, &format!("inspect --base base {flags}"))
}

fn stdout(workspace: &Workspace, flags: &str) -> String {
    command::stdout(workspace, &format!("inspect --base base {flags}"))
}

fn sources() -> (Workspace, [TensorData; 3]) {
    let tensors = [
        bf16("model.layers.9.mlp.up_proj.weight", &[256, 130]),
        tensor(
            "model.layers.10.mlp.up_proj.weight",
            Dtype::F32,
            &[128, 128],
            6,
        ),
        of_values(
            "model.layers.10.mlp.down_proj.weight",
            Dtype::F16,
            &[3, 2],
            &[0.0; 6],
        ),
    ];
    let mut all = tensors.to_vec();
    all.push(bf16("model.norm.weight", &[130]));
    let workspace = Workspace::new();
    workspace.write("base", &Checkpoint::single(all));
    (workspace, tensors)
}

#[test]
fn json_has_every_figure() {
    let (workspace, tensors) = sources();
    for (format, flag) in [
        (ScaleFormat::Ue8m0, "ue8m0"),
        (ScaleFormat::Float32, "float32"),
    ] {
        let flags = format!("--fp8 --scale-fmt {flag} --json");
        let json: Value = serde_json::from_str(&stdout(&workspace, &flags)).unwrap();
        assert_figures(&json["total"], &Naive::of(&tensors, format));

        let names = |key: &str| -> Vec<Value> {
            let rows = json[key].as_array().unwrap().iter();
            rows.map(|row| row["name"].clone()).collect()
        };
        assert_eq!(names("layers"), ["model.layers.9", "model.layers.10"]);
        assert_eq!(names("groups"), ["down_proj", "up_proj"]);
        let in_order = [&tensors[0], &tensors[2], &tensors[1]];
        assert_eq!(
            names("tensors"),
            in_order.map(|tensor| tensor.name.as_str())
        );
        for (row, tensor) in json["tensors"].as_array().unwrap().iter().zip(in_order) {
            assert_figures(row, &Naive::of([tensor], format));
            assert_eq!(row["shape"], serde_json::json!(tensor.shape));
            assert_eq!(row["source_dtype"], format!("{:?}", tensor.dtype));
        }
        assert_figures(&json["layers"][1], &Naive::of(&tensors[1..], format));
        assert_eq!(json["layers"][1]["tensors"], 2);
        assert_figures(&json["groups"][1], &Naive::of(&tensors[..2], format));
    }
}

fn assert_figures(json: &Value, naive: &Naive) {
    let counts = [
        ("elements", naive.elements),
        ("blocks", naive.blocks),
        ("zero_blocks", naive.zero_blocks),
        ("saturated", naive.saturated),
        ("zero_codes", naive.zero_codes),
        ("flushed", naive.flushed),
    ];
    for (key, count) in counts {
        assert_eq!(json[key], count, "{key}");
    }
    let share = |count: u64| count as f64 / naive.elements as f64;
    let numbers = [
        ("signal", naive.signal),
        ("noise", naive.noise),
        ("largest_relative_error", naive.relative_error),
        ("largest_block_error", naive.block_error),
        ("saturated_share", share(naive.saturated)),
        ("zero_share", share(naive.zero_codes)),
        ("flushed_share", share(naive.flushed)),
    ];
    for (key, number) in numbers {
        assert_close(json[key].as_f64().expect(key), number, key);
    }
    match naive.noise {
        0.0 => assert!(json["sqnr_db"].is_null()),
        noise => {
            let db = 10.0 * (naive.signal / noise).log10();
            assert_close(json["sqnr_db"].as_f64().unwrap(), db, "sqnr_db");
        }
    }
    let smallest = naive.amax.iter().copied().reduce(f64::min);
    let largest = naive.amax.iter().copied().reduce(f64::max);
    for (key, bound) in [("smallest_amax", smallest), ("largest_amax", largest)] {
        // The shortest text of an f32 need not be that of the f64.
        assert_eq!(
            json[key].as_f64().map(|x| x as f32),
            bound.map(|x| x as f32)
        );
    }
}

/// The tables of the output: their lines.
fn tables(text: &str) -> Vec<Vec<&str>> {
    let tables = text.trim_end().split("\n\n");
    tables.map(|table| table.lines().collect()).collect()
}

fn first_words<'a>(table: &[&'a str]) -> Vec<&'a str> {
    let words = table.iter().map(|line| line.split_whitespace().next());
    words.flatten().collect()
}

#[test]
fn tables_show_layers_and_groups_and_end_in_totals() {
    let (workspace, _) = sources();
    let text = stdout(&workspace, "--fp8");
    let tables = tables(&text);
    let [layers, groups] = tables.as_slice() else {
        panic!("{text}");
    };
    assert_eq!(
        first_words(layers),
        ["layer", "model.layers.9", "model.layers.10", "total"]
    );
    assert_eq!(
        first_words(groups),
        ["group", "down_proj", "up_proj", "total"]
    );
    let cells: Vec<_> = groups[1].split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "down_proj",
            "1",
            "6",
            // Six codes of 8 bits, and a scale of 32.
            "13.333",
            "exact",
            "0.00000",
            "0.00000",
            "0",
            "100.0000",
            "0",
            "1",
            "-",
            "-"
        ]
    );
    assert_eq!(layers[3].split_whitespace().nth(2), Some("49670"));
}

#[test]
fn columns_are_aligned() {
    let (workspace, _) = sources();
    for table in tables(&stdout(&workspace, "--fp8 --tensors")) {
        let width = table[0].len();
        assert!(table.iter().all(|line| line.len() == width), "{table:#?}");
        assert!(table.iter().all(|line| !line.ends_with(' ')), "{table:#?}");
    }
}

#[test]
fn tensors_are_shown_on_request() {
    let (workspace, tensors) = sources();
    let text = stdout(&workspace, "--fp8 --tensors");
    let tables = tables(&text);
    assert_eq!(tables.len(), 3);
    for tensor in &tensors {
        assert!(first_words(&tables[0]).contains(&tensor.name.as_str()));
    }
}

#[test]
fn a_view_that_quantizes_nothing_says_so() {
    let (workspace, _) = sources();
    assert_names(&stdout(&workspace, ""), &["quantizes no tensor", "--fp8"]);
    let json: Value = serde_json::from_str(&stdout(&workspace, "--json")).unwrap();
    assert_eq!(json["tensors"], serde_json::json!([]));
    assert_eq!(json["total"]["elements"], 0);
    assert!(json["total"]["sqnr_db"].is_null());
}

#[test]
fn nan_fails_on_standard_error() {
    let workspace = Workspace::new();
    let bad = of_values("bad", Dtype::F32, &[2, 2], &[0.0, 1.0, f32::NAN, 2.0]);
    workspace.write("base", &Checkpoint::single([bad]));
    let output = run(&workspace, "--fp8-pattern bad");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    assert_names(text(&output.stderr), &["bad", "NaN", "row 1", "column 0"]);
}

#[test]
fn contradicting_flags_are_wrong_usage() {
    let (workspace, _) = sources();
    let output = run(&workspace, "--fp8 --json --tensors");
    assert_eq!(output.status.code(), Some(2));
}

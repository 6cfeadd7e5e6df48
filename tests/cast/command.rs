//! `--dtype` on the command line.

use safetensors::Dtype;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::command::stdout;
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

#[test]
fn the_command_takes_the_dtypes_and_the_plan_counts() {
    let workspace = Workspace::new();
    let weight = quantized("a.weight", Dtype::F8_E4M3, Dtype::F32, &[4, 4], [128, 128]);
    let [codes, scale] = weight.both();
    let stored = [
        codes,
        scale,
        bf16("b", &[4]),
        tensor("c", Dtype::F16, &[4], 1),
    ];
    workspace.write("base", &Checkpoint::single(stored));
    for (flag, cast) in [("bf16", 1), ("f16", 1), ("f32", 2)] {
        let flags = format!("plan --base base --dtype {flag}");
        let text = stdout(&workspace, &flags);
        let changed = format!("{} changed (1 dequantize, {cast} cast)\n", 1 + cast);
        assert_names(&text, &[&changed]);
        let json = stdout(&workspace, &format!("{flags} --json"));
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["cast"], cast);
        assert_eq!(json["dequantized"], 1);
        assert_eq!(json["tensors"], 3);
    }
}

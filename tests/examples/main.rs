//! The examples of docs/examples do what they say.

// Their `main` is called by `cargo run` alone.
#![allow(dead_code)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../docs/examples/quantize_tensor.rs"]
mod quantize_tensor;
#[path = "../../docs/examples/read_range.rs"]
mod read_range;
#[path = "../../docs/examples/write_view.rs"]
mod write_view;

use std::fs;

use ckptfs::tensor::Dtype;

use common::Workspace;
use common::checkpoint::{Checkpoint, of_values, tensor};
use common::readback;

#[test]
fn read_range_reads_a_range_of_a_file_of_the_view() {
    let workspace = Workspace::new();
    let weight = tensor("a", Dtype::BF16, &[3, 5], 1);
    let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
    let file = "model-00001-of-00001.safetensors";
    let read = |offset, length| read_range::read_range(&base, file.as_ref(), offset, length);
    let length = u64::from_le_bytes(read(0, 8).unwrap().try_into().unwrap());
    let weight_starts = 8 + length;
    assert_eq!(read(weight_starts + 2, 4).unwrap(), weight.bytes[2..6]);
    assert_eq!(
        read(weight_starts, 100).unwrap(),
        *weight.bytes,
        "to the end of the file"
    );
    let error = read_range::read_range(&base, "x".as_ref(), 0, 1).unwrap_err();
    assert_eq!(error.to_string(), "the view has no file x");
}

#[test]
fn quantize_tensor_gives_codes_and_scales() {
    let workspace = Workspace::new();
    // Two blocks of 128 columns, of ones and of 3 × 2⁷.
    let row = [[1.0f32; 128], [384.0; 128]].concat();
    let weight = of_values("w.weight", Dtype::BF16, &[1, 256], &row);
    let base = workspace.write("base", &Checkpoint::single([weight]));
    let quantized = quantize_tensor::quantize_tensor(&base, "w.weight").unwrap();
    // The powers of two that bring the largest value of a block to at most 448: 1 / 2⁻⁸ = 256, 384 / 1.
    assert_eq!(quantized.scales, [1.0 / 256.0, 1.0]);
    // In E4M3 (bias 7, three bits of mantissa), 256 is 2⁸ and 384 is 1.5 × 2⁸.
    assert_eq!(quantized.codes[..128], [0x78; 128]);
    assert_eq!(quantized.codes[128..], [0x7c; 128]);
}

#[test]
fn write_view_writes_what_both_checkpoints_have() {
    let workspace = Workspace::new();
    let (a, b) = (
        tensor("a", Dtype::F32, &[4], 1),
        tensor("b", Dtype::F32, &[4], 2),
    );
    let base = workspace.write("base", &Checkpoint::single([a.clone()]));
    let extra = workspace.write("extra", &Checkpoint::single([b.clone()]));
    let out = workspace.path().join("out");
    write_view::write_view(&base, &extra, &out).unwrap();
    let shard = |number: u32| out.join(format!("model-0000{number}-of-00002.safetensors"));
    let written = [1, 2].map(|number| readback::parse(&fs::read(shard(number)).unwrap()));
    assert_eq!(written, [vec![a], vec![b]]);
    assert!(out.join("model.safetensors.index.json").exists());
}

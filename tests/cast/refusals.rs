//! What cannot be given as numbers, and how the errors name it.

use ckptfs::ops::Precision;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names, message};
use crate::fixture::*;

#[test]
fn what_cannot_be_dequantized_is_refused_by_name() {
    let codes = |shape: &[usize]| tensor("a.weight", Dtype::F8_E4M3, shape, 1);
    let scale = |dtype, shape: &[usize]| tensor("a.weight_scale_inv", dtype, shape, 2);
    let named = |name: &str, shape: &[usize]| tensor(name, Dtype::F32, shape, 2);
    let square = || codes(&[256, 256]);
    let cases: [(Vec<TensorData>, &[&str]); 13] = [
        (
            vec![square()],
            &["a.weight", "F8_E4M3", "a.weight_scale_inv"],
        ),
        (
            vec![square(), named("a.weight_scale", &[3])],
            &[
                "a.weight:",
                "a.weight_scale is [3]",
                "row, column or tensor",
            ],
        ),
        (
            vec![square(), tensor("a.scale", Dtype::F8_E8M0, &[256, 8], 2)],
            &["a.weight:", "a.scale is [256, 8]", "128 x 128"],
        ),
        (vec![square(), scale(Dtype::F32, &[2, 3])], &["[2, 3]"]),
        (vec![square(), scale(Dtype::F32, &[4, 4])], &["[4, 4]"]),
        (
            vec![square(), scale(Dtype::I32, &[2, 2])],
            &["a.weight:", "I32", "F8_E8M0"],
        ),
        (
            vec![codes(&[256]), scale(Dtype::F32, &[2])],
            &["a.weight:", "[256]"],
        ),
        (
            vec![codes(&[3, 256, 128]), scale(Dtype::F32, &[2, 1])],
            &["[3, 256, 128]", "[2, 1]"],
        ),
        (
            vec![scale(Dtype::F32, &[2, 2])],
            &["a.weight_scale_inv:", "no a.weight in this view"],
        ),
        (
            vec![bf16("a.weight", &[2, 2]), scale(Dtype::F32, &[1, 1])],
            &["a.weight_scale_inv", "BF16"],
        ),
        (
            vec![
                tensor("a.weight", Dtype::I8, &[2, 2], 1),
                scale(Dtype::F32, &[1, 1]),
            ],
            &["a.weight_scale_inv", "I8"],
        ),
        (
            vec![tensor("a.weight", Dtype::F8_E4M3FNUZ, &[2, 2], 1)],
            &["a.weight:", "F8_E4M3FNUZ"],
        ),
        (
            vec![tensor("a.weight", Dtype::F4, &[2, 2], 1)],
            &["a.weight:", "F4"],
        ),
    ];
    for (tensors, parts) in cases {
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single(tensors));
        let found = message(plan(&base, Precision::Bf16));
        assert_names(&found, parts);
    }
}

#[test]
fn grids_of_another_block_size_than_the_declared_are_refused() {
    let weight = quantized(
        "a.weight",
        Dtype::F8_E4M3,
        Dtype::F32,
        &[256, 256],
        [64, 128],
    );
    let workspace = Workspace::new();
    let base = workspace.write(
        "base",
        &Checkpoint::single(weight.both()).config(&fp8_config([128, 64])),
    );
    let found = message(plan(&base, Precision::Bf16));
    assert_names(&found, &["a.weight", "[256, 256]", "[4, 2]", "128 x 64"]);
}

#[test]
fn quantization_by_other_methods_is_refused_by_name_of_method_and_tensor() {
    let tensors = |name: &str| {
        [
            bf16("norm.weight", &[4]),
            tensor(name, Dtype::I32, &[4, 4], 1),
        ]
    };
    for (config, name, parts) in [
        (
            r#"{"quantization_config": {"quant_method": "quark", "bits": 4}}"#,
            "a.qweight",
            ["quark", "a.qweight"],
        ),
        (
            r#"{"quantization_config": {"quant_method": "compressed-tensors"}}"#,
            "a.weight_packed",
            ["compressed-tensors", "a.weight_packed"],
        ),
        (
            r#"{"compression_config": {"quant_method": "compressed-tensors"}}"#,
            "a.weight_scale",
            ["compressed-tensors", "a.weight_scale"],
        ),
        (
            r#"{"text_config": {"quantization_config": {"quant_method": "quark"}}}"#,
            "experts.down_proj_blocks",
            ["quark", "experts.down_proj_blocks"],
        ),
        (
            r#"{"quantization_config": {"quant_method": "gptq", "bits": 5}}"#,
            "a.qweight",
            ["bits 5", "a.qweight"],
        ),
        (
            r#"{"quantization_config": {"bits": 4}}"#,
            "a.scales",
            ["null", "a.scales"],
        ),
        (
            r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}}"#,
            "a",
            ["weight_block_size", "[0,128]"],
        ),
        (
            r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": 128}}"#,
            "a",
            ["weight_block_size", "128"],
        ),
    ] {
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single(tensors(name)).config(config));
        let found = message(plan(&base, Precision::Bf16));
        assert_names(&found, &parts);
        assert_names(&found, &["config.json"]);
    }
}

/// DeepSeek-V4 calls the scales of `X.weight` `X.scale`, and stores them in F8_E8M0.
#[test]
fn scale_of_f8_e8m0_is_read_beside_its_weight_and_refused_alone() {
    let workspace = Workspace::new();
    // Of the first two the number of scales is also that of tensors, and of rows.
    for (case, shape) in [[128, 128], [256, 16384], [256, 300]]
        .into_iter()
        .enumerate()
    {
        let blocks = shape.map(|len: usize| len.div_ceil(128));
        let weight = tensor("a.weight", Dtype::F8_E4M3, &shape, 1);
        let scales = tensor("a.scale", Dtype::F8_E8M0, &blocks, 2);
        let write = |name: &str, tensors: [&TensorData; 2]| {
            let checkpoint = Checkpoint::single(tensors.map(TensorData::clone));
            workspace.write(&format!("{name}-{case}"), &checkpoint)
        };
        let base = write("base", [&weight, &scales]);
        let alone = write("alone", [&scales, &bf16("b.weight", &[2, 2])]);
        let refused = message(plan(&alone, Precision::Bf16));
        assert_names(
            &refused,
            &["a.scale:", "F8_E8M0, a dtype of scales", "rename"],
        );

        let bytes = scales.bytes.to_vec();
        let usual = TensorData::new("a.weight_scale_inv", scales.dtype, &scales.shape, bytes);
        let [here, named] = [base, write("named", [&weight, &usual])]
            .map(|base| tensors(&plan(&base, Precision::Bf16).unwrap()));
        assert_eq!(here, named);
        assert_eq!(here["a.weight"].dtype, Dtype::BF16);
    }
}

//! The numbers of a view in one dtype.

use ckptfs::ops::{Experts, Precision, QuantizeParams, RuleSet};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::read::Reader;
use safetensors::Dtype;
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::oracle::casting;
use crate::common::oracle::numbers::quantize;
use crate::common::readback::{read_all, read_file, reader, tensors};
use crate::common::{Workspace, plan_fp8};
use crate::fixture::*;

#[test]
fn floating_tensors_are_rounded_and_all_others_are_as_they_are() {
    let floats = [Dtype::BF16, Dtype::F16, Dtype::F32].map(|dtype| {
        // More than a tile, of a length that no vector divides.
        tensor(&format!("{dtype:?}"), dtype, &[3, 250_007], 5)
    });
    let doubles: Vec<u8> = [1.0, -0.1, 1e300, 5e-324, 65_519.99, f64::INFINITY]
        .iter()
        .flat_map(|value: &f64| value.to_le_bytes())
        .collect();
    let doubles = TensorData::new("F64", Dtype::F64, &[6], doubles);
    let mut others: Vec<TensorData> = [Dtype::I64, Dtype::U8, Dtype::BOOL, Dtype::I32, Dtype::C64]
        .map(|dtype| tensor(&format!("{dtype:?}"), dtype, &[2, 5], 6))
        .to_vec();
    others.push(tensor("empty", Dtype::U8, &[0, 5], 6));
    let floats = || floats.iter().chain([&doubles]);
    let workspace = Workspace::new();
    let all = floats().cloned().chain(others.clone());
    let base = workspace.write("base", &Checkpoint::single(all));
    for (to, dtype, torch) in TARGETS {
        let plan = plan(&base, to).unwrap();
        let cast =
            floats().map(|tensor| casting::tensor_of(tensor, dtype, &casting::cast(tensor, dtype)));
        assert!(
            tensors(&plan) == by_name(cast.chain(others.clone())),
            "{dtype:?}"
        );
        for planned in &plan.shards[0].tensors {
            let changed = floats().any(|t| t.name == *planned.name && t.dtype != dtype);
            assert_eq!(planned.computed, changed, "{}", planned.name);
        }
        assert_eq!(
            (plan.report.count("cast"), plan.report.count("dequantized")),
            (3, 0)
        );
        assert_eq!(config_of(&plan)["torch_dtype"], torch);
        assert_eq!(plan.report.warnings, [""; 0]);
    }
}

#[test]
fn numbers_that_are_none_stay_none() {
    let bits = [0x7fc0u16, 0xffff, 0x7f81, 0x7f80, 0xff80];
    let bytes = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let source = TensorData::new("x", Dtype::BF16, &[5], bytes);
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([source.clone()]));
    for (to, dtype, _) in TARGETS {
        let found = &tensors(&plan(&base, to).unwrap())["x"];
        let elements = casting::elements(dtype, &found.bytes);
        assert_eq!(elements, casting::cast(&source, dtype));
    }
}

#[test]
fn codes_are_multiplied_by_the_scales_of_their_blocks() {
    let block = [128, 128];
    let other_block = [48, 96];
    for block in [block, other_block] {
        let mut all = Vec::new();
        for codes in [Dtype::F8_E4M3, Dtype::F8_E5M2] {
            for scales in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8_E8M0] {
                for shape in [
                    &[300, 200][..],
                    &[256, 384],
                    &[3, 130, 150],
                    &[2, 2, 50, 1],
                    &[1, 1],
                ] {
                    let name = format!(
                        "{codes:?}.{scales:?}.{}.weight",
                        shape.len() * 1000 + shape[0]
                    );
                    all.push(quantized(&name, codes, scales, shape, block));
                }
            }
        }
        let kept = bf16("norm.weight", &[7]);
        let workspace = Workspace::new();
        let stored = all.iter().flat_map(Quantized::both).chain([kept.clone()]);
        let checkpoint = Checkpoint::single(stored).config(&fp8_config(block));
        let base = workspace.write("base", &checkpoint);
        for (to, dtype, _) in TARGETS {
            let plan = plan(&base, to).unwrap();
            let mut expected = by_name(all.iter().map(|weight| weight.dequantized(dtype)));
            let kept = casting::tensor_of(&kept, dtype, &casting::cast(&kept, dtype));
            expected.insert(kept.name.clone(), kept);
            assert!(tensors(&plan) == expected, "{dtype:?} of {block:?}");
            assert_eq!(plan.report.count("dequantized"), all.len());
            assert_eq!(config_of(&plan).get("quantization_config"), None);
        }
    }
}

#[test]
fn any_range_of_a_dequantized_view_is_that_of_the_whole_file() {
    // Tiles of several bands in each group, whose rows no block divides.
    let weight = quantized(
        "a.weight",
        Dtype::F8_E4M3,
        Dtype::F32,
        &[2, 700, 1100],
        [128, 128],
    );
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(weight.both()).config(&fp8_config([128, 128]));
    let base = workspace.write("base", &checkpoint);
    let plan = plan(&base, Precision::Bf16).unwrap();
    let entry = plan.shards[0].entry;
    let whole = read_file(&reader(&plan), entry).unwrap();
    let small = Reader::new(plan.view.clone(), 0);
    for (i, start) in (0..whole.len()).step_by(99_991).enumerate() {
        let len = (whole.len() - start).min(1 + i * 7919 % 300_000);
        let mut part = vec![0xAA; len];
        assert_eq!(small.read_at(entry, start as u64, &mut part).unwrap(), len);
        assert!(
            part == whole[start..start + len],
            "{len} bytes from {start}"
        );
    }
}

#[test]
fn a_view_quantized_by_ckptfs_is_dequantized_to_codes_times_scales() {
    let weight = tensor(
        "model.layers.0.mlp.down_proj.weight",
        Dtype::F32,
        &[300, 260],
        8,
    );
    for format in [ScaleFormat::Ue8m0, ScaleFormat::Float32] {
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single([weight.clone()]));
        let fp8 = plan_fp8(
            &base,
            QuantizeParams {
                rules: Some(RuleSet::Exact),
                scale_format: Some(format),
                ..QuantizeParams::default()
            },
        );
        let written = workspace.path().join("fp8");
        std::fs::create_dir(&written).unwrap();
        for (path, bytes) in read_all(&fp8.unwrap()) {
            std::fs::write(written.join(path), bytes).unwrap();
        }
        let pair = quantize(&weight, format);
        let pair = Quantized {
            weight: pair.weight,
            scale: pair.scale,
            block: [128, 128],
        };
        for (to, dtype, _) in TARGETS {
            let found = tensors(&plan(&written, to).unwrap());
            assert_eq!(found, by_name([pair.dequantized(dtype)]), "{format:?}");
        }
    }
}

#[test]
fn fp8_quantizes_what_was_dequantized() {
    let name = "model.layers.0.mlp.down_proj.weight";
    let old = quantized(name, Dtype::F8_E5M2, Dtype::F16, &[300, 260], [64, 256]);
    let workspace = Workspace::new();
    let base = workspace.write(
        "base",
        &Checkpoint::single(old.both()).config(&fp8_config([64, 256])),
    );
    for (to, dtype, _) in TARGETS {
        let request = request(&base, to).with(|asked| asked.quantize.rules = Some(RuleSet::Exact));
        let plan = request.plan().unwrap();
        let new = quantize(&old.dequantized(dtype), ScaleFormat::Ue8m0);
        assert_eq!(tensors(&plan), by_name([new.weight, new.scale]));
        let declared = &config_of(&plan)["quantization_config"];
        assert_eq!(declared["weight_block_size"], json!([128, 128]));
        assert_eq!(declared["scale_fmt"], "ue8m0");
        assert_eq!(
            (
                plan.report.count("dequantized"),
                plan.report.count("quantized")
            ),
            (1, 1)
        );
    }
}

#[test]
fn experts_change_form_after_they_are_dequantized() {
    // Gate and up share a block, so that their codes could not be parted.
    let (experts, intermediate, hidden) = (3, 40, 4);
    let name = |name: &str| format!("model.layers.0.mlp.experts.{name}");
    let shapes = [
        ("gate_up_proj", [experts, 2 * intermediate, hidden]),
        ("down_proj", [experts, hidden, intermediate]),
    ];
    let fused = shapes.map(|(projection, shape)| {
        quantized(
            &name(projection),
            Dtype::F8_E4M3,
            Dtype::F32,
            &shape,
            [128, 128],
        )
    });
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(fused.iter().flat_map(Quantized::both));
    let base = workspace.write("base", &checkpoint.config(&fp8_config([128, 128])));
    let request = request(&base, Precision::Bf16);
    let request = request.with(|asked| asked.experts.form = Some(Experts::Unfuse));
    let plan = request.plan().unwrap();
    let found = tensors(&plan);
    assert_eq!(found.len(), 9);
    let [gate_up, down] = fused.map(|weight| weight.dequantized(Dtype::BF16));
    let row_bytes = 2 * hidden;
    for expert in 0..experts {
        for (half, projection) in ["gate_proj", "up_proj"].iter().enumerate() {
            let weight = &found[&name(&format!("{expert}.{projection}.weight"))];
            let start = (2 * expert + half) * intermediate * row_bytes;
            let rows = &gate_up.bytes[start..start + intermediate * row_bytes];
            assert!(*weight.bytes == *rows, "{weight:?}");
            assert_eq!(weight.shape, [intermediate, hidden]);
        }
        let weight = &found[&name(&format!("{expert}.down_proj.weight"))];
        let bytes = 2 * hidden * intermediate;
        assert!(*weight.bytes == down.bytes[expert * bytes..(expert + 1) * bytes]);
    }
}

//! Experts in a new form, then quantized.

use ckptfs::ops::Experts;
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::recipe::Plan;
use safetensors::Dtype;
use serde_json::Value;

use crate::common::Workspace;
use crate::common::checkpoint::{TensorData, bf16, of_values, tensor};
use crate::common::oracle::numbers::{quantize, scale_name};
use crate::common::readback::{read_all, read_path, tensors};
use crate::fixture::*;

const LAYER: &str = "model.layers.0.mlp";

/// Experts whose gate ends inside a block of the fused tensor.
const RAGGED: Sizes = Sizes {
    experts: 11,
    intermediate: 100,
    hidden: 140,
};

/// Asserts that the view of `source` in a new form is, file by file, that of `changed`, which has
/// the form already. Both are quantized.
fn assert_like(source: &[TensorData], experts: Experts, changed: &[TensorData], hidden: usize) {
    let workspace = Workspace::new();
    let found = plan_fp8(
        &workspace.write("found", &single(source, hidden)),
        Some(experts),
    );
    let expected = plan_fp8(&workspace.write("expected", &single(changed, hidden)), None);
    assert_eq!(
        found.report.count("quantized"),
        expected.report.count("quantized")
    );
    assert!(found.report.count("quantized") > 0);
    let (found, expected) = (read_all(&found), read_all(&expected));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (path, bytes) in expected {
        assert!(found[&path] == bytes, "{} differs", path.display());
    }
}

#[test]
fn unfused_and_quantized_is_the_quantized_unfused_checkpoint() {
    let fused = fused_layer(LAYER, Dtype::BF16, RAGGED);
    let unfused = unfused(LAYER, &fused);
    assert_like(&fused, Experts::Unfuse, &unfused, RAGGED.hidden);
}

#[test]
fn fused_and_quantized_is_the_quantized_fused_checkpoint() {
    let fused = fused_layer(LAYER, Dtype::BF16, RAGGED);
    let unfused = unfused(LAYER, &fused);
    assert_like(&unfused, Experts::Fuse, &fused, RAGGED.hidden);
}

#[test]
fn tiles_of_a_fused_tensor_hold_rows_of_gate_and_of_up_and_restart_at_each_expert() {
    // 1 MiB of source is 512 rows: of an expert's gate and up with 600 rows each, the second tile
    // begins inside gate and ends inside up.
    let sizes = Sizes {
        experts: 2,
        intermediate: 600,
        hidden: 1024,
    };
    let fused = fused_layer(LAYER, Dtype::BF16, sizes);
    let unfused = unfused(LAYER, &fused);
    assert_like(&unfused, Experts::Fuse, &fused, sizes.hidden);
}

#[test]
fn codes_and_scales_of_either_form_are_those_of_the_scalar_definition() {
    let fused = fused_layer(LAYER, Dtype::BF16, RAGGED);
    let unfused = unfused(LAYER, &fused);
    let workspace = Workspace::new();
    for (source, experts, changed) in [
        (&fused, Experts::Unfuse, &unfused),
        (&unfused, Experts::Fuse, &fused),
    ] {
        let base = workspace.write(&format!("{experts:?}"), &single(source, RAGGED.hidden));
        let found = tensors(&plan_fp8(&base, Some(experts)));
        assert_eq!(found.len(), 2 * changed.len());
        for weight in changed {
            let expected = quantize(weight, ScaleFormat::Ue8m0);
            assert_eq!(found[&weight.name], expected.weight);
            assert!(found[&weight.name].bytes == expected.weight.bytes);
            assert!(found[&scale_name(&weight.name)].bytes == expected.scale.bytes);
        }
    }
}

fn declared(plan: &Plan) -> Value {
    let config = read_path(plan, "config.json").unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    config["quantization_config"].clone()
}

#[test]
fn power_of_two_scales_are_declared_only_if_every_part_of_joined_scales_has_them() {
    let sizes = Sizes {
        experts: 2,
        intermediate: 128,
        hidden: 128,
    };
    let attention = bf16("model.layers.0.self_attn.o_proj.weight", &[128, 128]);
    let weights = unfused(LAYER, &fused_layer(LAYER, Dtype::F8_E4M3, sizes));
    for (last, declares) in [(0.25, true), (0.3, false)] {
        let scaled = weights.iter().enumerate().flat_map(|(i, weight)| {
            let value = if i + 1 == weights.len() { last } else { 2.0 };
            let scale = of_values(&scale_name(&weight.name), Dtype::F32, &[1, 1], &[value]);
            [weight.clone(), scale]
        });
        let source: Vec<TensorData> = scaled.chain([attention.clone()]).collect();
        let workspace = Workspace::new();
        let base = workspace.write("base", &single(&source, sizes.hidden));
        let plan = plan_fp8(&base, Some(Experts::Fuse));
        let down = &tensors(&plan)[&format!("{LAYER}.experts.down_proj_scale_inv")];
        let expected = of_values(&down.name, Dtype::F32, &[2, 1, 1], &[2.0, last]);
        assert_eq!(*down, expected);
        let scale_fmt = declared(&plan).get("scale_fmt").cloned();
        assert_eq!(scale_fmt, declares.then(|| "ue8m0".into()));
    }
}

#[test]
fn experts_that_stay_unquantized_are_left_alone_by_the_names_of_their_new_form() {
    // Not one of the rule set's names, so only attention is quantized.
    let layer = "model.layers.0.moe";
    let sizes = Sizes {
        experts: 2,
        intermediate: 4,
        hidden: 128,
    };
    let fused = fused_layer(layer, Dtype::BF16, sizes);
    let unfused = unfused(layer, &fused);
    let attention = tensor(
        "model.layers.0.self_attn.o_proj.weight",
        Dtype::BF16,
        &[128, 128],
        1,
    );
    let workspace = Workspace::new();
    for (source, experts, skipped) in [
        (
            &fused,
            Experts::Unfuse,
            "model.layers.0.moe.experts.1.down_proj",
        ),
        (&unfused, Experts::Fuse, "model.layers.0.moe.experts"),
    ] {
        let source = [&source[..], std::slice::from_ref(&attention)].concat();
        let base = workspace.write(&format!("{experts:?}"), &single(&source, sizes.hidden));
        let list = declared(&plan_fp8(&base, Some(experts)))["modules_to_not_convert"].clone();
        let list: Vec<String> = serde_json::from_value(list).unwrap();
        assert!(list.iter().any(|module| module == skipped), "{list:?}");
        let stale = list.iter().filter(|module| match experts {
            Experts::Unfuse => module.ends_with(".experts"),
            Experts::Fuse => module.contains(".experts."),
        });
        assert_eq!(stale.count(), 0, "{list:?}");
    }
}

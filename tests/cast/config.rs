//! What a view in one dtype says of itself, and what it leaves alone.

use ckptfs::ops::{CastRule, Precision};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::oracle::config::entries;
use crate::common::readback::{read_path, tensors};
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

#[test]
fn blocks_are_128_by_128_if_config_json_does_not_say() {
    let weight = quantized(
        "a.weight",
        Dtype::F8_E4M3,
        Dtype::F32,
        &[130, 260],
        [128, 128],
    );
    for config in [
        r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": null}}"#,
        r#"{"quantization_config": null}"#,
        "{}",
    ] {
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single(weight.both()).config(config));
        let plan = plan(&base, Precision::F32).unwrap();
        assert_eq!(tensors(&plan)["a.weight"], weight.dequantized(Dtype::F32));
    }
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(weight.both()).without_config());
    let plan = plan(&base, Precision::F32).unwrap();
    assert_eq!(tensors(&plan)["a.weight"], weight.dequantized(Dtype::F32));
    assert_eq!(read_path(&plan, "config.json"), None);
}

#[test]
fn a_view_that_has_the_dtype_already_is_the_base() {
    let workspace = Workspace::new();
    let checkpoint =
        Checkpoint::single([bf16("a.weight", &[4, 4]), tensor("b", Dtype::I64, &[3], 1)]);
    let base = workspace.write("base", &checkpoint);
    let plan = plan(&base, Precision::Bf16).unwrap();
    assert_eq!(
        plan.shards[0].whole_file,
        Some(base.join("model.safetensors"))
    );
    let config = read_path(&plan, "config.json").unwrap();
    assert_eq!(config, std::fs::read(base.join("config.json")).unwrap());
    assert_names(
        &plan.report.warnings.join("\n"),
        &["dtype: it has no effect", "BF16"],
    );
}

#[test]
fn shards_without_anything_to_cast_are_source_files() {
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [bf16("a", &[4, 4])])
        .shard(
            "model-00002-of-00002.safetensors",
            [tensor("b", Dtype::F32, &[4], 1)],
        );
    let base = workspace.write("base", &checkpoint);
    let plan = plan(&base, Precision::Bf16).unwrap();
    let whole: Vec<bool> = plan.shards.iter().map(|s| s.whole_file.is_some()).collect();
    assert_eq!(whole, [true, false]);
}

#[test]
fn config_json_declares_the_dtype_wherever_it_did_and_keeps_all_else() {
    let source = r#"{
  "architectures": ["X"],
  "dtype": "float32",
  "eps": 1e-06,
  "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
  "text_config": {
    "dtype": "bfloat16",
    "theta": 1e+7,
    "quantization_config": {"quant_method": "fp8"}
  },
  "vision_config": {"depth": 2.50, "torch_dtype": "float32"},
  "other": {"dtype": "float32"},
  "big": 123456789012345678901234567890
}"#;
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single([bf16("a", &[4])])
        .config(source)
        .aux("hf_quant_config.json", "{}");
    let base = workspace.write("base", &checkpoint);
    let plan = plan(&base, Precision::F16).unwrap();
    let text = read_path(&plan, "config.json").unwrap();
    let found = entries(&text);
    let mut expected = entries(source.as_bytes());
    expected.retain(|(key, _)| key != "quantization_config");
    for ((key, value), (expected_key, expected)) in found.iter().zip(&expected) {
        assert_eq!(key, expected_key);
        match key.as_str() {
            "dtype" => assert_eq!(value, "\"float16\""),
            "text_config" => {
                let inner = entries(value.as_bytes());
                let expected = [("dtype", "\"float16\""), ("theta", "1e+7")];
                assert_eq!(inner, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
            }
            "vision_config" => {
                let inner = entries(value.as_bytes());
                let expected = [("depth", "2.50"), ("torch_dtype", "\"float16\"")];
                assert_eq!(inner, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
            }
            _ => assert_eq!(value, expected, "{key}"),
        }
    }
    assert_eq!(found.len(), expected.len());
    assert_eq!(read_path(&plan, "hf_quant_config.json"), None);
    assert_names(&plan.report.notes.join("\n"), &["hf_quant_config.json"]);
}

#[test]
fn config_json_without_a_dtype_gets_one() {
    for (config, key) in [
        (r#"{"a": 1}"#, Some("torch_dtype")),
        (r#"{"text_config": {"dtype": "float32"}}"#, None),
        (
            r#"{"vision_config": {"dtype": "float32"}}"#,
            Some("torch_dtype"),
        ),
    ] {
        let workspace = Workspace::new();
        let base = workspace.write(
            "base",
            &Checkpoint::single([bf16("a", &[4])]).config(config),
        );
        let found = config_of(&plan(&base, Precision::F16).unwrap());
        let top = found.as_object().unwrap();
        let declared = top.iter().find(|(_, value)| *value == "float16");
        assert_eq!(declared.map(|(key, _)| key.as_str()), key, "{config}");
    }
}

/// Scales of a KV cache and of activations, whose values bf16 cannot hold.
const ACTIVATION_SCALES: [&str; 4] = [
    "model.layers.0.self_attn.k_scale",
    "model.layers.0.self_attn.attn.v_scale",
    "model.layers.0.self_attn.k_proj.output_scale",
    "model.layers.0.mlp.down_proj.input_scale",
];

fn with_activation_scales() -> Checkpoint {
    let scales = ACTIVATION_SCALES
        .iter()
        .map(|name| tensor(name, Dtype::F32, &[], 7));
    let weights = [tensor("model.norm.weight", Dtype::F32, &[8], 1)];
    Checkpoint::single(scales.chain(weights))
}

#[test]
fn scales_of_activations_and_of_the_cache_keep_their_dtype_and_bytes() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &with_activation_scales());
    let stored = tensors(&ckptfs::recipe::ViewRequest::new(&base).plan().unwrap());
    let converted = tensors(&plan(&base, Precision::Bf16).unwrap());
    for name in ACTIVATION_SCALES {
        assert_eq!(converted[name], stored[name], "{name}");
    }
    assert_eq!(converted["model.norm.weight"].dtype, Dtype::BF16);

    let cast = ckptfs::recipe::ViewRequest::new(&base).with(|asked| {
        asked.cast.rules.push(CastRule {
            names: ".*".to_owned(),
            to: Precision::F16,
        });
    });
    let cast = tensors(&cast.plan().unwrap());
    for name in ACTIVATION_SCALES {
        assert_eq!(cast[name], stored[name], "{name}");
    }
    assert_eq!(cast["model.norm.weight"].dtype, Dtype::F16);
}

#[test]
fn scales_of_activations_go_with_the_declaration_that_they_belong_to() {
    let weight = quantized(
        "a.weight",
        Dtype::F8_E4M3,
        Dtype::F32,
        &[130, 260],
        [128, 128],
    );
    let scale = tensor("a.k_scale", Dtype::F32, &[], 7);
    let config =
        r#"{"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}"#;
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(weight.both().into_iter().chain([scale]));
    let base = workspace.write("base", &checkpoint.config(config));
    let plan = plan(&base, Precision::F32).unwrap();
    assert_eq!(tensors(&plan).keys().collect::<Vec<_>>(), ["a.weight"]);
    assert_names(&plan.report.notes.join("\n"), &["1 scale of activations"]);
}

//! config.json of an FP8 view.

use std::path::Path;

use ckptfs::ops::{QuantizeParams, RuleSet};
use ckptfs::quant::fp8_block::ScaleFormat;
use safetensors::Dtype;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::compare::assert_view;
use crate::common::oracle::Wanted;
use crate::common::oracle::config::entries;
use crate::common::readback::read_path;
use crate::common::{Workspace, assert_names, message, plan_by_rules};

const LAYER: &str = "model.layers.0.self_attn.o_proj.weight";

fn base() -> Checkpoint {
    Checkpoint::single([bf16(LAYER, &[128, 128]), bf16("model.norm.weight", &[128])])
}

fn by_rules(base: Checkpoint) -> Wanted {
    Wanted::new(base).fp8_by_rules(QuantizeParams::default())
}

/// The text of an FP8 view's config.json.
fn config(base: &Checkpoint) -> String {
    let workspace = Workspace::new();
    let plan = plan_by_rules(&workspace.write("base", base)).unwrap();
    String::from_utf8(read_path(&plan, "config.json").unwrap()).unwrap()
}

fn quantization(base: &Checkpoint) -> Value {
    let config: Value = serde_json::from_str(&config(base)).unwrap();
    config["quantization_config"].clone()
}

/// `modules_to_not_convert`, sorted.
fn skipped(base: Checkpoint) -> Vec<String> {
    let wanted = by_rules(base);
    assert_view(&wanted);
    let list = quantization(&wanted.base)["modules_to_not_convert"].clone();
    let mut list: Vec<String> = serde_json::from_value(list).unwrap();
    list.sort();
    list
}

#[test]
fn the_block_says_what_the_view_holds() {
    let expected = serde_json::json!({
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
        "scale_fmt": "ue8m0",
        "modules_to_not_convert": ["lm_head"],
    });
    assert_eq!(quantization(&base()), expected);
}

#[test]
fn all_other_keys_keep_their_order_and_their_text() {
    let text = concat!(
        "{\"z\": 1e-06, \"a\":1.0,\n\t\"architectures\" : [ \"X\" ,\"Y\"], \"u\": \"\\u00e9 é \\/\",",
        "\"big\": 123456789012345678901234567890, \"digits\": 0.1000000000000000055511151231257827,",
        "\"nested\": {\"k\": [1,2,  3],\"b\":null}, \"e\": {}, \"n\": -0.0, \"m\": 1E+2 }",
    );
    let base = base().config(text);
    assert_view(&by_rules(base.clone()));
    let found = entries(config(&base).as_bytes());
    let source = entries(text.as_bytes());
    assert_eq!(found[..source.len()], source[..]);
    assert_eq!(found.len(), source.len() + 1);
    assert_eq!(found.last().unwrap().0, "quantization_config");
}

#[test]
fn a_config_as_transformers_writes_it_only_gains_lines() {
    let text = crate::common::checkpoint::CONFIG;
    let found = config(&base());
    let kept = text.strip_suffix("\n}\n").unwrap();
    let added = found
        .strip_prefix(kept)
        .expect("what was there stays as it is");
    assert!(
        added.starts_with(",\n  \"quantization_config\": {\n    \""),
        "{added}"
    );
    assert!(added.ends_with("  }\n}\n"), "{added}");
}

#[test]
fn nested_and_foreign_descriptions_of_a_quantization_disappear() {
    let block = r#"{"quant_method": "fp8", "weight_block_size": [128, 128]}"#;
    let text = format!(
        r#"{{"a": 1, "text_config": {{"b": 1e-06, "quantization_config": {block}, "c": [2]}}, "d": 3}}"#
    );
    let workspace = Workspace::new();
    let base = base().config(&text).aux("hf_quant_config.json", "{}");
    let plan = plan_by_rules(&workspace.write("base", &base)).unwrap();
    assert!(read_path(&plan, "hf_quant_config.json").is_none());
    let found = read_path(&plan, "config.json").unwrap();
    let found = entries(&found);
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a", "text_config", "d", "quantization_config"]);
    let text_config = entries(found[1].1.as_bytes());
    let expected = [("b", "1e-06"), ("c", "[2]")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(text_config, expected);
}

#[test]
fn a_view_without_fp8_keeps_config_and_quantization_files_as_they_are() {
    let text = r#"{"quantization_config":{"quant_method":"gptq"},"text_config":{"quantization_config":{}}}"#;
    assert_view(&Wanted::new(
        base().config(text).aux("hf_quant_config.json", "{}"),
    ));
}

#[test]
fn a_missing_config_is_an_error() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base().without_config());
    assert_names(&message(plan_by_rules(&base)), &["config.json"]);
}

#[test]
fn a_config_that_is_not_an_object_is_an_error() {
    for text in ["", "[]", "3", "{", "{\"a\": NaN}"] {
        let workspace = Workspace::new();
        let base = workspace.write("base", &base().config(text));
        assert_names(&message(plan_by_rules(&base)), &["config.json"]);
    }
}

#[test]
fn a_config_that_declares_another_method_is_an_error_that_names_it() {
    let block = r#"{"quant_method": "gptq", "bits": 4}"#;
    let texts = [
        format!(r#"{{"quantization_config": {block}}}"#),
        format!(r#"{{"text_config": {{"quantization_config": {block}}}}}"#),
    ];
    for text in texts {
        let workspace = Workspace::new();
        let base = workspace.write("base", &base().config(&text));
        assert_names(&message(plan_by_rules(&base)), &["config.json", "gptq"]);
    }
}

#[test]
fn exact_scales_are_not_declared_as_powers_of_two() {
    let wanted = Wanted::new(base()).fp8_by_rules(QuantizeParams {
        scale_format: Some(ScaleFormat::Float32),
        ..QuantizeParams::default()
    });
    assert_view(&wanted);
}

/// An FP8 weight with the given scales.
fn passed_through(scales: &[f32]) -> [TensorData; 2] {
    let name = "model.layers.1.self_attn.o_proj.weight";
    [
        tensor(name, Dtype::F8_E4M3, &[128, 128 * scales.len()], 1),
        of_values(
            &format!("{name}_scale_inv"),
            Dtype::F32,
            &[1, scales.len()],
            scales,
        ),
    ]
}

#[test]
fn passed_through_scales_that_are_no_powers_of_two_are_not_declared_as_such() {
    let quantized_before =
        r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#;
    for text in [crate::common::checkpoint::CONFIG, quantized_before] {
        let [weight, scale] = passed_through(&[0.5, 0.3]);
        let base = Checkpoint::single([bf16(LAYER, &[128, 128]), weight, scale]).config(text);
        assert_view(&by_rules(base));
    }
}

#[test]
fn passed_through_weights_keep_the_rest_of_the_view_as_it_is() {
    let [weight, scale] = passed_through(&[0.5, 2.0]);
    let declared = r#"{"quantization_config": {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}}"#;
    let base = Checkpoint::single([bf16(LAYER, &[128, 128]), weight, scale]).config(declared);
    assert_view(&by_rules(base));
}

#[test]
fn a_module_is_skipped_if_its_weight_is_a_matrix_that_is_not_quantized() {
    let base = Checkpoint::single([
        bf16(LAYER, &[128, 128]),
        bf16("model.layers.0.self_attn.o_proj.bias", &[128]),
        bf16("model.layers.0.mlp.gate.weight", &[4, 128]),
        bf16("model.layers.0.mlp.gate.e_score_correction_bias", &[4]),
        bf16("model.layers.0.mlp.experts.0.down_proj.weight", &[128, 128]),
        bf16("model.layers.0.linear_attn.A_log", &[16]),
        bf16("model.layers.0.linear_attn.dt_bias", &[16]),
        bf16("model.layers.0.linear_attn.conv1d.weight", &[16, 1, 4]),
        bf16("model.layers.0.linear_attn.in_proj_a.weight", &[4, 128]),
        bf16("model.layers.0.linear_attn.in_proj_b.weight", &[4, 128]),
        bf16("model.layers.0.linear_attn.out_proj.weight", &[128, 128]),
        bf16("model.layers.0.input_layernorm.weight", &[128]),
        bf16("model.embed_tokens.weight", &[256, 128]),
        bf16("model.visual.blocks.0.attn.qkv.weight", &[256, 128]),
        bf16("model.visual.patch_embed.proj.weight", &[128, 3, 2, 14, 14]),
        bf16("mtp.fc.weight", &[128, 256]),
        bf16("lm_head.weight", &[256, 128]),
    ]);
    let expected = [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.linear_attn.conv1d",
        "model.layers.0.linear_attn.in_proj_a",
        "model.layers.0.linear_attn.in_proj_b",
        "model.layers.0.mlp.gate",
        "model.visual.blocks.0.attn.qkv",
        "model.visual.patch_embed.proj",
        "mtp.fc",
    ];
    assert_eq!(skipped(base), expected);
}

#[test]
fn a_tied_head_is_skipped_though_it_has_no_weight() {
    let base = base().config(r#"{"tie_word_embeddings": true}"#);
    assert_eq!(skipped(base), ["lm_head"]);
}

#[test]
fn a_quantized_head_is_not_skipped() {
    let base = Checkpoint::single([
        bf16(LAYER, &[128, 128]),
        bf16("lm_head.weight", &[128, 128]),
    ]);
    let request = QuantizeParams {
        patterns: vec![r"lm_head\.weight".to_owned()],
        rules: Some(RuleSet::Exact),
        ..QuantizeParams::default()
    };
    assert_view(&Wanted::new(base).fp8(request, [LAYER, "lm_head.weight"]));
}

#[test]
fn a_weight_that_is_fp8_already_is_not_skipped() {
    let [weight, scale] = passed_through(&[1.0]);
    let base = Checkpoint::single([bf16(LAYER, &[128, 128]), weight, scale]);
    assert_eq!(skipped(base), ["lm_head"]);
}

#[test]
fn nothing_is_skipped_under_quantized_fused_experts() {
    let base = Checkpoint::single([
        bf16("model.layers.0.mlp.experts.gate_up_proj", &[2, 256, 128]),
        bf16("model.layers.0.mlp.experts.down_proj", &[2, 128, 128]),
        bf16("model.layers.0.mlp.gate.weight", &[2, 128]),
    ]);
    assert_eq!(skipped(base), ["lm_head", "model.layers.0.mlp.gate"]);
}

#[test]
fn the_config_is_a_file_of_the_view_and_not_of_the_source() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let before = std::fs::read(directory.join("config.json")).unwrap();
    let plan = plan_by_rules(&directory).unwrap();
    let files = plan.view.files();
    let (_, _, content) = files
        .into_iter()
        .find(|(_, path, _)| path == Path::new("config.json"))
        .unwrap();
    assert!(content.whole_file().is_none());
    assert_eq!(
        std::fs::read(directory.join("config.json")).unwrap(),
        before
    );
}

//! `modules_to_not_convert` tells every consumer what the view holds.

use std::collections::BTreeSet;

use ckptfs::error::Warning;
use ckptfs::ops::QuantizeParams;
use ckptfs::recipe::Plan;
use safetensors::Dtype;
use serde_json::Value;

use crate::common::checkpoint::{CONFIG, Checkpoint, TensorData, bf16, of_values, tensor};
use crate::common::readback::read_path;
use crate::common::{Workspace, assert_names, plan_fp8};

fn plan(base: &Checkpoint, fp8: QuantizeParams) -> Plan {
    let workspace = Workspace::new();
    let plan = plan_fp8(&workspace.write("base", base), fp8).unwrap();
    // The config is synthesized, so it can be read after its source is gone.
    drop(workspace);
    plan
}

fn by_rules(base: &Checkpoint) -> Plan {
    plan(base, QuantizeParams::by_rules())
}

fn list(plan: &Plan) -> BTreeSet<String> {
    let config = read_path(plan, "config.json").unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    serde_json::from_value(config["quantization_config"]["modules_to_not_convert"].clone()).unwrap()
}

fn set<const N: usize>(modules: [&str; N]) -> BTreeSet<String> {
    modules.map(str::to_owned).into()
}

fn matrix(name: &str) -> TensorData {
    bf16(name, &[128, 128])
}

fn dense_layer(prefix: &str) -> Vec<TensorData> {
    [
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ]
    .iter()
    .map(|module| matrix(&format!("{prefix}.{module}.weight")))
    .collect()
}

/// Warnings that name a consumer of the list.
fn contradictions(plan: &Plan) -> Vec<&Warning> {
    let warnings = plan.report.warnings.iter();
    warnings
        .filter(|warning| warning.text().contains("modules_to_not_convert"))
        .collect()
}

#[test]
fn a_bias_of_a_quantized_layer_is_not_listed() {
    let mut tensors = dense_layer("model.layers.0");
    tensors.push(bf16("model.layers.0.self_attn.o_proj.bias", &[128]));
    let plan = by_rules(&Checkpoint::single(tensors));
    assert_eq!(list(&plan), set(["lm_head"]));
}

#[test]
fn parameters_without_a_weight_are_not_listed_even_beside_quantized_ones() {
    let mut tensors = vec![matrix("model.layers.0.linear_attn.out_proj.weight")];
    tensors.push(bf16("model.layers.0.linear_attn.A_log", &[32]));
    tensors.push(bf16("model.layers.0.linear_attn.dt_bias", &[32]));
    tensors.push(bf16(
        "model.layers.0.mlp.gate.e_score_correction_bias",
        &[8],
    ));
    let plan = by_rules(&Checkpoint::single(tensors));
    assert_eq!(list(&plan), set(["lm_head"]));
}

#[test]
fn routers_convolutions_towers_and_heads_are_listed_by_full_path() {
    let mut tensors = dense_layer("model.language_model.layers.0");
    let unquantized = [
        "lm_head",
        "model.language_model.embed_tokens",
        "model.language_model.layers.1.mlp.gate",
        "model.language_model.layers.1.mlp.shared_expert_gate",
        "model.language_model.layers.1.linear_attn.in_proj_a",
        "model.language_model.layers.1.linear_attn.in_proj_b",
        "model.visual.blocks.0.attn.qkv",
        "mtp.fc",
    ];
    tensors.extend(unquantized.map(|module| matrix(&format!("{module}.weight"))));
    tensors.push(bf16(
        "model.language_model.layers.1.linear_attn.conv1d.weight",
        &[64, 1, 4],
    ));
    tensors.push(bf16(
        "model.visual.patch_embed.proj.weight",
        &[16, 3, 2, 4, 4],
    ));
    tensors.push(bf16("model.language_model.norm.weight", &[128]));
    tensors.extend(dense_layer("mtp.layers.0"));
    let plan = by_rules(&Checkpoint::single(tensors));
    let mut expected = set(unquantized);
    expected.insert("model.language_model.layers.1.linear_attn.conv1d".to_owned());
    expected.insert("model.visual.patch_embed.proj".to_owned());
    assert_eq!(list(&plan), expected);
    assert!(contradictions(&plan).is_empty());
}

#[test]
fn unquantized_fused_experts_are_listed_by_their_module() {
    let mut tensors = dense_layer("model.layers.0");
    tensors.push(bf16(
        "model.layers.1.mlp.experts.gate_up_proj",
        &[2, 256, 128],
    ));
    tensors.push(bf16("model.layers.1.mlp.experts.down_proj", &[2, 128, 128]));
    let request = QuantizeParams {
        patterns: vec![r".*\.layers\.0\..*_proj\.weight".to_owned()],
        ..QuantizeParams::default()
    };
    let plan = plan(&Checkpoint::single(tensors), request);
    assert_eq!(list(&plan), set(["lm_head", "model.layers.1.mlp.experts"]));
}

#[test]
fn nothing_under_quantized_fused_experts_is_listed() {
    let plan = by_rules(&Checkpoint::single([
        bf16("model.layers.1.mlp.experts.gate_up_proj", &[2, 256, 128]),
        bf16("model.layers.1.mlp.experts.down_proj", &[2, 128, 128]),
        matrix("model.layers.1.mlp.gate.weight"),
    ]));
    assert_eq!(list(&plan), set(["lm_head", "model.layers.1.mlp.gate"]));
}

#[test]
fn entries_of_a_partly_quantized_source_stay_unless_they_would_now_be_wrong() {
    let config = CONFIG.replacen(
        '{',
        r#"{"quantization_config": {"quant_method": "fp8", "modules_to_not_convert":
            ["model.layers.1.self_attn.o_proj", "model.layers.7.mlp.gate", "o_proj"]},"#,
        1,
    );
    let base = Checkpoint::single([
        tensor(
            "model.layers.0.self_attn.o_proj.weight",
            Dtype::F8_E4M3,
            &[128, 128],
            1,
        ),
        of_values(
            "model.layers.0.self_attn.o_proj.weight_scale_inv",
            Dtype::F32,
            &[1, 1],
            &[0.25],
        ),
        matrix("model.layers.1.self_attn.o_proj.weight"),
    ])
    .config(&config);
    assert_eq!(
        list(&by_rules(&base)),
        set(["lm_head", "model.layers.7.mlp.gate"])
    );
}

#[test]
fn an_entry_that_some_consumers_match_by_part_of_a_name_is_reported_with_those_consumers() {
    // Without the `model.` prefix, an unquantized layer's path is the end of the MTP block's.
    let mut tensors = vec![matrix("layers.0.self_attn.o_proj.weight")];
    tensors.push(matrix("mtp.layers.0.self_attn.o_proj.weight"));
    let request = QuantizeParams {
        patterns: vec![r"mtp\..*".to_owned()],
        ..QuantizeParams::default()
    };
    let plan = plan(&Checkpoint::single(tensors), request);
    assert!(list(&plan).contains("layers.0.self_attn.o_proj"));
    let found = contradictions(&plan);
    assert_eq!(found.len(), 2, "{found:?}");
    for (warning, consumer) in found.iter().zip(["transformers 4", "transformers 5"]) {
        assert!(warning.text().starts_with(consumer), "{warning}");
        assert_names(
            warning,
            &[
                "mtp.layers.0.self_attn.o_proj",
                "by the entry layers.0.self_attn.o_proj",
            ],
        );
    }
}

#[test]
fn a_router_whose_path_begins_like_a_quantized_layer_is_reported_for_substring_matching_alone() {
    let mut tensors = dense_layer("model.layers.0");
    tensors.push(matrix("model.layers.0.mlp.gate.weight"));
    let plan = by_rules(&Checkpoint::single(tensors));
    let [warning] = contradictions(&plan)[..] else {
        panic!("one warning: {:?}", plan.report.warnings);
    };
    assert!(warning.text().starts_with("transformers 4 "), "{warning}");
    assert_names(
        warning,
        &["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.gate"],
    );
}

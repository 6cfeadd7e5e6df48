//! How much the rules leave unquantized is reported, and much of it is warned of.

use std::collections::BTreeSet;

use ckptfs::error::{Code, Warning};
use ckptfs::ops::quantize::UnquantizedReport;
use ckptfs::ops::{PartialBlocks, QuantizeParams, RuleSet};
use ckptfs::recipe::Plan;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::{Workspace, assert_names, plan_fp8};

fn plan(config: &str, tensors: Vec<TensorData>, fp8: QuantizeParams) -> Plan {
    let workspace = Workspace::new();
    let base = Checkpoint::single(tensors).aux("config.json", config);
    plan_fp8(&workspace.write("base", &base), fp8).unwrap()
}

fn report(plan: &Plan) -> &UnquantizedReport {
    let reports: Vec<&UnquantizedReport> = plan.report.reports().collect();
    let [report] = reports[..] else {
        panic!("one report: {reports:?}");
    };
    report
}

fn warning(plan: &Plan) -> Option<&Warning> {
    let mut warnings = plan.report.warnings.iter();
    warnings.find(|warning| warning.code() == Code::Unquantized)
}

/// 256 bytes that the exact rules quantize, and two experts of 128 bytes that they do not.
fn mixtral() -> Vec<TensorData> {
    let layer = "model.layers.0";
    vec![
        bf16("model.embed_tokens.weight", &[100, 100]),
        bf16(&format!("{layer}.input_layernorm.weight"), &[100]),
        bf16(&format!("{layer}.self_attn.o_proj.weight"), &[8, 16]),
        bf16(
            &format!("{layer}.block_sparse_moe.experts.0.w1.weight"),
            &[8, 8],
        ),
        bf16(
            &format!("{layer}.block_sparse_moe.experts.1.w1.weight"),
            &[8, 8],
        ),
        bf16(&format!("{layer}.block_sparse_moe.gate.weight"), &[2, 8]),
        bf16("model.vision_tower.layers.0.mlp.fc.weight", &[100, 100]),
    ]
}

#[test]
fn the_report_counts_matrices_inside_layers_by_kind_of_module() {
    let plan = plan("{}", mixtral(), QuantizeParams::by_rules());
    let report = report(&plan);
    assert_eq!(
        (report.layer_bytes, report.bytes),
        (256 + 256 + 32, 256 + 32)
    );
    let modules = report.modules.iter();
    let modules: Vec<_> = modules.map(|m| (&*m.module, m.tensors, m.bytes)).collect();
    let expected = [
        ("block_sparse_moe.experts.*.w1", 2, 256),
        ("block_sparse_moe.gate", 1, 32),
    ];
    assert_eq!(modules, expected);
}

#[test]
fn much_that_stays_unquantized_is_warned_of_and_official_rules_are_the_way_out_where_known() {
    let known = plan(
        r#"{"model_type": "mixtral"}"#,
        mixtral(),
        QuantizeParams::by_rules(),
    );
    let text = warning(&known).unwrap().text();
    assert_names(
        text,
        &[
            "52 %",
            "experts.*.w1 47 %",
            "quantize.rules: official",
            "mixtral",
            "quantize.patterns",
        ],
    );
    for config in [
        "{}",
        r#"{"model_type": "gpt2"}"#,
        r#"{"model_type": "qwen3"}"#,
    ] {
        let unknown = plan(config, mixtral(), QuantizeParams::by_rules());
        let text = warning(&unknown).unwrap().text();
        assert!(!text.contains("official"), "{text}");
        assert_names(text, &["quantize.patterns"]);
    }
}

#[test]
fn a_bf16_deepseek_under_the_exact_rules_is_warned_of_and_not_under_the_official_ones() {
    let kept = [
        "self_attn.q_a_proj",
        "self_attn.q_b_proj",
        "self_attn.kv_a_proj_with_mqa",
        "self_attn.kv_b_proj",
        "mlp.shared_experts.gate_proj",
        "mlp.shared_experts.up_proj",
        "mlp.shared_experts.down_proj",
    ];
    let quantized = [
        "self_attn.o_proj",
        "mlp.experts.0.gate_proj",
        "mlp.experts.0.up_proj",
        "mlp.experts.0.down_proj",
    ];
    let tensors = || {
        let modules = kept.iter().chain(&quantized);
        let weights = modules.map(|module| format!("model.layers.0.{module}.weight"));
        weights.map(|name| bf16(&name, &[8, 8])).collect()
    };
    let config = r#"{"model_type": "deepseek_v3"}"#;
    let exact = plan(config, tensors(), QuantizeParams::by_rules());
    let modules: BTreeSet<&str> = report(&exact).modules.iter().map(|m| &*m.module).collect();
    assert_eq!(modules, BTreeSet::from(kept));
    // Seven of eleven.
    let text = warning(&exact).unwrap().text();
    assert_names(text, &["63 %", "quantize.rules: official", "deepseek_v3"]);
    let official = QuantizeParams {
        rules: Some(RuleSet::Official),
        ..QuantizeParams::default()
    };
    let official = plan(config, tensors(), official);
    assert_eq!((warning(&official), report(&official).bytes), (None, 0));
}

#[test]
fn what_is_selected_besides_or_by_official_rules_does_not_stay_unquantized() {
    let config = r#"{"model_type": "mixtral"}"#;
    let official = QuantizeParams {
        rules: Some(RuleSet::Official),
        ..QuantizeParams::default()
    };
    let with_pattern = QuantizeParams {
        patterns: vec![".*w1.weight".to_owned()],
        ..QuantizeParams::by_rules()
    };
    for fp8 in [official, with_pattern] {
        let plan = plan(config, mixtral(), fp8);
        assert_eq!(report(&plan).bytes, 32);
        assert_eq!(warning(&plan), None);
    }
}

#[test]
fn a_tenth_is_not_much_and_one_byte_more_is() {
    let layer = |kept: usize| {
        vec![
            bf16("model.layers.0.self_attn.o_proj.weight", &[9, 100]),
            bf16("model.layers.0.mlp.gate.weight", &[1, kept]),
        ]
    };
    let by_rules = |kept| plan("{}", layer(kept), QuantizeParams::by_rules());
    assert_eq!(warning(&by_rules(100)), None);
    assert!(warning(&by_rules(101)).is_some());
}

#[test]
fn tensors_that_are_kept_for_partial_blocks_stay_unquantized() {
    let keep = QuantizeParams {
        partial_blocks: Some(PartialBlocks::Keep),
        ..QuantizeParams::by_rules()
    };
    let tensors = vec![
        bf16("model.layers.0.self_attn.o_proj.weight", &[128, 128]),
        bf16("model.layers.1.self_attn.o_proj.weight", &[128, 100]),
    ];
    let plan = plan("{}", tensors, keep);
    assert_eq!(report(&plan).bytes, 2 * 128 * 100);
    assert!(warning(&plan).is_some());
}

#[test]
fn tensors_that_are_fp8_already_count_as_quantized() {
    let name = "model.layers.0.block_sparse_moe.experts.0.w1.weight";
    let tensors = vec![
        tensor(name, safetensors::Dtype::F8_E4M3, &[128, 128], 1),
        tensor(
            &format!("{name}_scale_inv"),
            safetensors::Dtype::F32,
            &[1, 1],
            2,
        ),
        bf16("model.layers.0.self_attn.o_proj.weight", &[8, 16]),
    ];
    let plan = plan("{}", tensors, QuantizeParams::by_rules());
    let report = report(&plan);
    assert_eq!((report.layer_bytes, report.bytes), (128 * 128 + 256, 0));
}

#[test]
fn without_rules_there_is_no_report() {
    let pattern = QuantizeParams {
        patterns: vec![".*o_proj.*".to_owned()],
        ..QuantizeParams::default()
    };
    let plan = plan("{}", mixtral(), pattern);
    assert_eq!(plan.report.reports::<UnquantizedReport>().count(), 0);
    assert_eq!(warning(&plan), None);
}

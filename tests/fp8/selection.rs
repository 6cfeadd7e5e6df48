//! Which tensors an FP8 view quantizes.

use std::collections::BTreeSet;

use ckptfs::ops::{PartialBlocks, QuantizeParams};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, small, tensor};
use crate::common::compare::{assert_plan, assert_view};
use crate::common::oracle::Wanted;
use crate::common::oracle::selection::rule_set_selects;
use crate::common::{Workspace, assert_names, fp8_names, message, plan_by_rules, plan_fp8};

/// Names that the rule set quantizes. Members of fused groups come together.
const QUANTIZED: [&str; 31] = [
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.11.mlp.experts.0.gate_proj.weight",
    "model.layers.11.mlp.experts.0.up_proj.weight",
    "model.layers.11.mlp.experts.0.down_proj.weight",
    "model.layers.11.mlp.experts.127.gate_proj.weight",
    "model.layers.11.mlp.experts.127.up_proj.weight",
    "model.layers.11.mlp.experts.127.down_proj.weight",
    "model.layers.2.mlp.shared_expert.gate_proj.weight",
    "model.layers.2.mlp.shared_expert.up_proj.weight",
    "model.layers.2.mlp.shared_expert.down_proj.weight",
    "model.layers.3.linear_attn.in_proj_qkv.weight",
    "model.layers.3.linear_attn.in_proj_z.weight",
    "model.layers.3.linear_attn.out_proj.weight",
    "layers.0.self_attn.o_proj.weight",
    "language_model.layers.0.self_attn.o_proj.weight",
    "model.language_model.layers.0.self_attn.o_proj.weight",
    "model.language_model.layers.4.linear_attn.out_proj.weight",
    "mtp.layers.0.self_attn.o_proj.weight",
    "mtp.layers.0.mlp.shared_expert.down_proj.weight",
    "mtp.layers.0.mlp.down_proj.weight",
    "mtp.layers.1.linear_attn.out_proj.weight",
    "model.layers.100000000000000000000.self_attn.o_proj.weight",
    "model.layers.007.self_attn.o_proj.weight",
    "layers.3.mlp.shared_expert.down_proj.weight",
    "language_model.layers.12.mlp.down_proj.weight",
];

/// Fused experts that the rule set quantizes: three dimensions and no `.weight`.
const QUANTIZED_EXPERTS: [&str; 4] = [
    "model.layers.5.mlp.experts.gate_up_proj",
    "model.layers.5.mlp.experts.down_proj",
    "mtp.layers.2.mlp.experts.gate_up_proj",
    "mtp.layers.2.mlp.experts.down_proj",
];

/// Names that the rule set leaves alone.
const KEPT: [&str; 57] = [
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "model.layers.0.mlp.gate.weight",
    "model.layers.0.mlp.shared_expert_gate.weight",
    "model.layers.0.mlp.experts.gate.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.q_norm.weight",
    "model.layers.0.self_attn.q_proj.bias",
    "model.layers.0.mlp.down_proj.bias",
    "model.layers.0.mlp.experts.0.down_proj.bias",
    "model.layers.0.linear_attn.A_log",
    "model.layers.0.linear_attn.dt_bias",
    "model.layers.0.linear_attn.conv1d.weight",
    "model.layers.0.linear_attn.in_proj_a.weight",
    "model.layers.0.linear_attn.in_proj_b.weight",
    "model.layers.0.linear_attn.in_proj_ba.weight",
    "model.layers.0.linear_attn.in_proj_qkvz.weight",
    "model.layers.0.linear_attn.norm.weight",
    "mtp.fc.weight",
    "mtp.pre_fc_norm_hidden.weight",
    "mtp.norm.weight",
    "model.visual.blocks.0.attn.qkv.weight",
    "model.visual.layers.0.self_attn.q_proj.weight",
    "model.visual.merger.mlp.0.weight",
    "visual.layers.0.mlp.down_proj.weight",
    "vision_tower.encoder.layers.0.self_attn.q_proj.weight",
    "model.vision_tower.layers.0.self_attn.q_proj.weight",
    "xmodel.layers.0.self_attn.o_proj.weight",
    "model.model.layers.0.self_attn.o_proj.weight",
    "model.mtp.layers.0.self_attn.o_proj.weight",
    "mtp.model.layers.0.self_attn.o_proj.weight",
    "mtp.language_model.layers.0.self_attn.o_proj.weight",
    "encoder.layers.0.self_attn.o_proj.weight",
    "modelxlayers.0.self_attn.o_proj.weight",
    "model.layersx0.self_attn.o_proj.weight",
    "model.layers.0.self_attn.o_projxweight",
    "model.layers.0xself_attn.o_proj.weight",
    "model.layers..self_attn.o_proj.weight",
    "model.layers.x.self_attn.o_proj.weight",
    "model.layers.-1.self_attn.o_proj.weight",
    "model.layers.0.0.self_attn.o_proj.weight",
    "model.layers.self_attn.o_proj.weight",
    "model.layers.0.self_attn.o_proj.weights",
    "model.layers.0.self_attn.o_proj.weight.0",
    "model.layers.0.self_attn.o_proj.weight\n",
    "model.layers.0.self_attn.o_proj",
    "model.layers.0.self_attn.qkv_proj.weight",
    "model.layers.0.self_attn.kv_b_proj.weight",
    "model.layers.0.attn.o_proj.weight",
    "model.layers.0.mlp.shared_experts.down_proj.weight",
    "model.layers.0.mlp.shared_expert.0.down_proj.weight",
    "model.layers.0.mlp.experts.x.down_proj.weight",
    "model.layers.0.mlp.experts.0.down_proj",
    "model.layers.0.mlp.experts.down_proj.weight",
    "model.layers.0.block_sparse_moe.experts.0.w1.weight",
    "model.layers.0.linear_attn.out_proj.weight_scale",
];

const LAYER: &str = "model.layers.0.self_attn.o_proj.weight";

fn request(patterns: &[&str]) -> QuantizeParams {
    QuantizeParams {
        patterns: patterns.iter().map(|p| (*p).to_owned()).collect(),
        ..QuantizeParams::default()
    }
}

#[test]
fn the_rule_set_quantizes_the_linear_layers_and_nothing_else() {
    let experts = QUANTIZED_EXPERTS.map(|name| bf16(name, &[2, 4, 4]));
    let mut all = small(QUANTIZED);
    all.extend(experts);
    all.extend(small(KEPT));
    let workspace = Workspace::new();
    let plan = plan_by_rules(&workspace.write("base", &Checkpoint::single(all))).unwrap();
    let wanted: BTreeSet<&str> = QUANTIZED.into_iter().chain(QUANTIZED_EXPERTS).collect();
    let found = fp8_names(&plan);
    assert_eq!(
        found.difference(&wanted).collect::<Vec<_>>(),
        [&""; 0],
        "quantized, but must not be"
    );
    assert_eq!(
        wanted.difference(&found).collect::<Vec<_>>(),
        [&""; 0],
        "not quantized, but must be"
    );
}

#[test]
fn the_oracle_of_these_tests_decides_as_the_table_does() {
    assert!(
        QUANTIZED
            .into_iter()
            .chain(QUANTIZED_EXPERTS)
            .all(rule_set_selects)
    );
    assert!(!KEPT.into_iter().any(rule_set_selects));
}

#[test]
fn a_pattern_selects_the_names_that_it_matches_as_a_whole() {
    let names = ["a.weight", "b.weight", "xa.weight", "a.weight.x", "c", "cc"];
    let base = Checkpoint::single(small(names));
    let quantized = |patterns: &[&str]| {
        let workspace = Workspace::new();
        let plan = plan_fp8(&workspace.write("base", &base), request(patterns)).unwrap();
        fp8_names(&plan)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(quantized(&[r"a\.weight"]), ["a.weight"]);
    assert_eq!(quantized(&[r"a\.weight|c"]), ["a.weight", "c"]);
    assert_eq!(
        quantized(&[r"[ab]\..*"]),
        ["a.weight", "a.weight.x", "b.weight"]
    );
    assert_eq!(quantized(&["c", "cc"]), ["c", "cc"]);
    assert_eq!(quantized(&["c|cc"]), ["c", "cc"]);
    assert_eq!(quantized(&["(?i)A.WEIGHT"]), ["a.weight"]);
    assert_eq!(quantized(&["^c$"]), ["c"]);
}

#[test]
fn a_pattern_that_is_no_regular_expression_is_an_error_that_shows_it() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(small(["a"])));
    for pattern in ["(", "a)|(b", "[z-a]"] {
        assert_names(&message(plan_fp8(&base, request(&[pattern]))), &[pattern]);
    }
}

#[test]
fn a_tensor_that_is_fp8_already_passes_through() {
    for scale in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8_E8M0] {
        let base = Checkpoint::single([
            tensor(LAYER, Dtype::F8_E4M3, &[130, 260], 1),
            tensor(&format!("{LAYER}_scale_inv"), scale, &[2, 3], 2),
            bf16("model.layers.1.self_attn.o_proj.weight", &[130, 260]),
        ]);
        let workspace = Workspace::new();
        let plan = plan_by_rules(&workspace.write("base", &base)).unwrap();
        let found = crate::common::readback::tensors(&plan);
        assert_eq!(&found[LAYER], base.get(LAYER));
        let scale = format!("{LAYER}_scale_inv");
        assert_eq!(&found[&scale], base.get(&scale));
        assert_eq!(plan.report.count("quantized"), 1);
    }
}

#[test]
fn a_selected_tensor_of_another_kind_is_an_error_that_names_it() {
    let other_kinds = [
        tensor(LAYER, Dtype::F64, &[4, 4], 1),
        tensor(LAYER, Dtype::I8, &[4, 4], 1),
        tensor(LAYER, Dtype::F8_E5M2, &[4, 4], 1),
        tensor(LAYER, Dtype::BF16, &[16], 1),
        tensor(LAYER, Dtype::BF16, &[], 1),
        tensor(LAYER, Dtype::BF16, &[2, 2, 2, 2], 1),
        // FP8, but the scale is missing.
        tensor(LAYER, Dtype::F8_E4M3, &[4, 4], 1),
    ];
    for other_kind in other_kinds {
        let workspace = Workspace::new();
        let base = Checkpoint::single([other_kind.clone(), bf16("lm_head.weight", &[4, 4])]);
        let base = workspace.write("base", &base);
        assert_names(&message(plan_by_rules(&base)), &[LAYER]);
        let pattern = format!("{LAYER}|lm_head.weight");
        assert_names(&message(plan_fp8(&base, request(&[&pattern]))), &[LAYER]);
    }
}

#[test]
fn a_selected_tensor_whose_scale_name_is_taken_is_an_error_that_names_it() {
    let scale = format!("{LAYER}_scale_inv");
    let workspace = Workspace::new();
    let base = Checkpoint::single([bf16(LAYER, &[4, 4]), tensor(&scale, Dtype::F32, &[1, 1], 1)]);
    assert_names(
        &message(plan_by_rules(&workspace.write("base", &base))),
        &[LAYER],
    );
}

/// Whole fused groups of every kind of shape.
fn shapes() -> Checkpoint {
    Checkpoint::single([
        bf16("model.layers.0.self_attn.o_proj.weight", &[128, 256]),
        bf16("model.layers.1.self_attn.o_proj.weight", &[127, 256]),
        bf16("model.layers.2.self_attn.o_proj.weight", &[128, 255]),
        bf16("model.layers.3.mlp.experts.gate_up_proj", &[3, 256, 128]),
        bf16("model.layers.3.mlp.experts.down_proj", &[3, 128, 128]),
        bf16("model.layers.4.mlp.experts.gate_up_proj", &[2, 64, 100]),
        bf16("model.layers.4.mlp.experts.down_proj", &[2, 100, 32]),
    ])
}

#[test]
fn partial_blocks_can_keep_their_dtype() {
    let request = QuantizeParams {
        partial_blocks: Some(PartialBlocks::Keep),
        ..QuantizeParams::default()
    };
    let plan = assert_view(&Wanted::new(shapes()).fp8_by_rules(request));
    let whole = [
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.3.mlp.experts.down_proj",
        "model.layers.3.mlp.experts.gate_up_proj",
    ];
    assert_eq!(fp8_names(&plan), BTreeSet::from(whole));
}

#[test]
fn partial_blocks_are_quantized_by_default_with_a_warning_of_who_cannot_read_them() {
    let wanted = Wanted::new(shapes()).fp8_by_rules(QuantizeParams::default());
    let workspace = Workspace::new();
    let plan = wanted.write(&workspace).plan().unwrap();
    assert_plan(&wanted, &plan);
    assert_eq!(fp8_names(&plan).len(), 7);
    let warnings = plan.report.warnings.join("\n");
    let parts = [
        "vLLM",
        "wrong scales",
        "SGLang",
        "transformers",
        "quantize.partial_blocks: keep",
    ];
    assert_names(&warnings, &parts);
}

#[test]
fn whole_blocks_are_quantized_without_a_warning() {
    let base = Checkpoint::single([
        bf16(LAYER, &[128, 256]),
        bf16("lm_head.weight", &[128, 128]),
    ]);
    let plan = assert_view(&Wanted::new(base).fp8_by_rules(QuantizeParams::default()));
    assert_eq!(plan.report.warnings, [""; 0]);
}

#[test]
fn fused_experts_in_fp8_are_warned_about_because_some_loaders_get_them_wrong() {
    let workspace = Workspace::new();
    let fused = [
        bf16("model.layers.0.mlp.experts.gate_up_proj", &[2, 256, 128]),
        bf16("model.layers.0.mlp.experts.down_proj", &[2, 128, 128]),
    ];
    let plan = plan_by_rules(&workspace.write("fused", &Checkpoint::single(fused))).unwrap();
    assert_names(
        &plan.report.warnings.join("\n"),
        &["transformers", "experts: unfuse", "mlp.experts.down_proj"],
    );
    let single = [bf16(
        "model.layers.0.mlp.experts.0.down_proj.weight",
        &[128, 128],
    )];
    let plan = plan_by_rules(&workspace.write("single", &Checkpoint::single(single))).unwrap();
    assert_eq!(plan.report.warnings, [""; 0]);
}

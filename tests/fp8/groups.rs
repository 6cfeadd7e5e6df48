//! Layers that engines fuse into one are quantized together or not at all.

use std::collections::BTreeSet;

use ckptfs::ops::{PartialBlocks, QuantizeParams, RuleSet};
use ckptfs::recipe::Plan;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback::read_path;
use crate::common::{Workspace, assert_names, fp8_names, message, plan_by_rules, plan_fp8};

const ALONE: &str = "model.layers.7.self_attn.o_proj.weight";

/// A group of which some tensors consist of whole blocks and some do not.
struct Group {
    layer: &'static str,
    whole: Vec<TensorData>,
    partial: Vec<TensorData>,
}

impl Group {
    fn new(layer: &'static str, whole: &[(&str, &[usize])], partial: &[(&str, &[usize])]) -> Self {
        let tensors = |members: &[(&str, &[usize])]| -> Vec<TensorData> {
            let name = |member| format!("{layer}.{member}");
            members
                .iter()
                .map(|(member, shape)| bf16(&name(member), shape))
                .collect()
        };
        Group {
            layer,
            whole: tensors(whole),
            partial: tensors(partial),
        }
    }

    /// A base of the group and a tensor that belongs to none.
    fn base(&self) -> Checkpoint {
        let alone = bf16(ALONE, &[128, 128]);
        let group = self.whole.iter().chain(&self.partial).cloned();
        Checkpoint::single(group.chain([alone]))
    }
}

fn groups() -> Vec<Group> {
    let whole: &[usize] = &[256, 128];
    let partial: &[usize] = &[192, 128];
    let attention = Group::new(
        "model.layers.0.self_attn",
        &[("q_proj.weight", whole)],
        &[("k_proj.weight", partial), ("v_proj.weight", partial)],
    );
    let mlp = Group::new(
        "model.layers.0.mlp",
        &[("gate_proj.weight", whole)],
        &[("up_proj.weight", partial)],
    );
    let shared_expert = Group::new(
        "model.layers.0.mlp.shared_expert",
        &[("up_proj.weight", whole)],
        &[("gate_proj.weight", partial)],
    );
    let linear_attention = Group::new(
        "model.layers.0.linear_attn",
        &[("in_proj_qkv.weight", whole)],
        &[("in_proj_z.weight", partial)],
    );
    let experts = Group::new(
        "model.layers.0.mlp.experts",
        &[
            ("0.gate_proj.weight", whole),
            ("0.up_proj.weight", whole),
            ("0.down_proj.weight", whole),
            ("1.gate_proj.weight", whole),
            ("1.up_proj.weight", whole),
        ],
        &[("1.down_proj.weight", partial)],
    );
    let fused_experts = Group::new(
        "model.layers.0.mlp.experts",
        &[("gate_up_proj", &[2, 128, 128])],
        &[("down_proj", &[2, 128, 64])],
    );
    vec![
        attention,
        mlp,
        shared_expert,
        linear_attention,
        experts,
        fused_experts,
    ]
}

/// `modules_to_not_convert`.
fn skipped(plan: &Plan) -> BTreeSet<String> {
    let config = read_path(plan, "config.json").unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let list = config["quantization_config"]["modules_to_not_convert"].clone();
    serde_json::from_value(list).unwrap()
}

#[test]
fn a_group_of_which_a_part_is_kept_is_kept_as_a_whole_with_a_warning() {
    for group in groups() {
        let workspace = Workspace::new();
        let request = QuantizeParams {
            rules: Some(RuleSet::Exact),
            partial_blocks: Some(PartialBlocks::Keep),
            ..QuantizeParams::default()
        };
        let plan = plan_fp8(&workspace.write("base", &group.base()), request).unwrap();
        assert_eq!(fp8_names(&plan), BTreeSet::from([ALONE]), "{}", group.layer);
        assert_names(&plan.report.warnings.join("\n"), &[group.layer]);
        let skipped = skipped(&plan);
        for tensor in group.whole.iter().chain(&group.partial) {
            if let Some(module) = tensor.name.strip_suffix(".weight") {
                assert!(skipped.contains(module), "{module} is not in {skipped:?}");
            }
        }
    }
}

#[test]
fn a_group_of_which_every_part_is_selected_is_quantized_as_a_whole() {
    for group in groups() {
        let workspace = Workspace::new();
        let plan = plan_by_rules(&workspace.write("base", &group.base())).unwrap();
        let members = group.whole.iter().chain(&group.partial);
        let mut expected: BTreeSet<&str> = members.map(|tensor| tensor.name.as_str()).collect();
        expected.insert(ALONE);
        assert_eq!(fp8_names(&plan), expected);
    }
}

/// A reference that has these tensors quantized.
fn reference<'a>(names: impl IntoIterator<Item = &'a str>) -> Checkpoint {
    let scales = names
        .into_iter()
        .map(|name| bf16(&format!("{name}_scale_inv"), &[1]));
    Checkpoint::single(scales)
}

fn names(tensors: &[TensorData]) -> impl Iterator<Item = &str> {
    tensors.iter().map(|tensor| tensor.name.as_str())
}

#[test]
fn a_group_that_a_reference_has_quantized_is_quantized_though_blocks_are_partial() {
    for group in groups() {
        let workspace = Workspace::new();
        let members: BTreeSet<&str> = names(&group.whole).chain(names(&group.partial)).collect();
        let reference = reference(members.iter().copied());
        let request = QuantizeParams {
            references: vec![workspace.write("reference", &reference).into()],
            partial_blocks: Some(PartialBlocks::Keep),
            ..QuantizeParams::default()
        };
        let plan = plan_fp8(&workspace.write("base", &group.base()), request).unwrap();
        assert_eq!(fp8_names(&plan), members);
        assert_names(&plan.report.warnings.join("\n"), &[group.layer]);
    }
}

#[test]
fn a_group_of_which_a_reference_has_a_part_quantized_is_an_error() {
    for group in groups() {
        let workspace = Workspace::new();
        let request = QuantizeParams {
            references: vec![
                workspace
                    .write("reference", &reference(names(&group.whole)))
                    .into(),
            ],
            ..QuantizeParams::default()
        };
        let result = plan_fp8(&workspace.write("base", &group.base()), request);
        assert_names(&message(result), &[group.layer]);
    }
}

#[test]
fn a_group_of_which_a_part_is_fp8_already_is_completed_or_is_an_error() {
    let [q, k, v] = ["q", "k", "v"].map(|p| format!("model.layers.0.self_attn.{p}_proj.weight"));
    let base = Checkpoint::single([
        tensor(&q, Dtype::F8_E4M3, &[128, 128], 1),
        tensor(&format!("{q}_scale_inv"), Dtype::F32, &[1, 1], 1),
        bf16(&k, &[128, 128]),
        bf16(&v, &[128, 128]),
        bf16(ALONE, &[128, 128]),
    ]);
    let workspace = Workspace::new();
    let base = workspace.write("base", &base);
    let plan = plan_by_rules(&base).unwrap();
    assert_eq!(fp8_names(&plan), BTreeSet::from([ALONE, &q, &k, &v]));
    let alone = QuantizeParams {
        patterns: vec![ALONE.to_owned()],
        ..QuantizeParams::default()
    };
    assert_names(
        &message(plan_fp8(&base, alone)),
        &["model.layers.0.self_attn"],
    );
}

#[test]
fn inputs_of_linear_and_latent_attention_outside_the_rule_set_are_groups_too() {
    for (first, second) in [
        ("linear_attn.in_proj_a", "linear_attn.in_proj_b"),
        ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"),
    ] {
        let [a, b] = [first, second].map(|module| format!("model.layers.0.{module}.weight"));
        let bias = format!("model.layers.0.{first}.bias");
        let workspace = Workspace::new();
        let base = workspace.write(
            "base",
            &Checkpoint::single([
                bf16(&a, &[128, 128]),
                bf16(&bias, &[128]),
                bf16(&b, &[128, 128]),
                bf16(ALONE, &[128, 128]),
            ]),
        );
        let select = |patterns: &[&String]| {
            let mut patterns: Vec<String> = patterns.iter().map(|p| (*p).clone()).collect();
            patterns.push(ALONE.to_owned());
            let request = QuantizeParams {
                patterns,
                ..QuantizeParams::default()
            };
            plan_fp8(&base, request).unwrap()
        };
        let one = select(&[&a]);
        assert_eq!(fp8_names(&one), BTreeSet::from([ALONE]), "{first} alone");
        assert_names(&one.report.warnings.join("\n"), &[&a]);
        let both = select(&[&a, &b]);
        assert_eq!(fp8_names(&both), BTreeSet::from([ALONE, &a, &b]));
        assert_eq!(both.report.warnings, [""; 0]);
    }
}

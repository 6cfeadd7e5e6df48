//! FP8 views that quantize what a reference quantizes.

use std::collections::BTreeSet;
use std::path::Path;

use ckptfs::error::{Code, Warning};
use ckptfs::ops::quantize::ReferenceReport;
use ckptfs::ops::{QuantizeParams, RuleSet};
use ckptfs::recipe::Plan;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, small, tensor};
use crate::common::compare::assert_view;
use crate::common::oracle::Wanted;
use crate::common::{Workspace, assert_names, fp8_names, plan_fp8};

const LAYER: &str = "model.layers.0.self_attn.o_proj.weight";
const MLA: &str = "model.layers.0.self_attn.kv_b_proj.weight";

/// A reference that has `quantized` with scales and `kept` without.
fn reference(quantized: &[&str], kept: &[&str]) -> Checkpoint {
    let with_scale = |name: &&str| {
        let scale = format!("{name}_scale_inv");
        [
            tensor(name, Dtype::F8_E4M3, &[2, 4], 1),
            tensor(&scale, Dtype::F32, &[1, 1], 2),
        ]
    };
    let kept = small(kept.iter().copied());
    let tensors = quantized.iter().flat_map(with_scale).chain(kept);
    Checkpoint::new().shard("model-00001-of-00001.safetensors", tensors)
}

fn plan_reference(base: &Path, reference: &Path) -> ckptfs::Result<Plan> {
    plan_fp8(
        base,
        QuantizeParams {
            references: vec![reference.to_owned().into()],
            ..QuantizeParams::default()
        },
    )
}

#[test]
fn a_reference_selects_exactly_the_names_that_have_a_scale_in_it() {
    let workspace = Workspace::new();
    let base = workspace.write(
        "base",
        &Checkpoint::single(small([LAYER, MLA, "lm_head.weight"])),
    );
    // The rule set would decide the other way round.
    let reference = workspace.write("reference", &reference(&[MLA], &[LAYER, "lm_head.weight"]));
    let plan = plan_reference(&base, &reference).unwrap();
    assert_eq!(fp8_names(&plan), BTreeSet::from([MLA]));
}

#[test]
fn the_index_of_a_reference_is_enough() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(small([LAYER, MLA])));
    let reference = workspace.write("reference", &reference(&[MLA], &[LAYER]));
    for entry in std::fs::read_dir(&reference).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("model.safetensors.index.json") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let plan = plan_reference(&base, &reference).unwrap();
    assert_eq!(fp8_names(&plan), BTreeSet::from([MLA]));
}

#[test]
fn the_headers_of_a_reference_without_an_index_are_enough() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(small([LAYER, MLA])));
    let reference = reference(&[MLA], &[LAYER]).without_index().without_config();
    let plan = plan_reference(&base, &workspace.write("reference", &reference)).unwrap();
    assert_eq!(fp8_names(&plan), BTreeSet::from([MLA]));
}

#[test]
fn names_in_which_view_and_reference_differ_are_reported() {
    let workspace = Workspace::new();
    let base = Checkpoint::single(small([LAYER, "only.in.view.weight"]));
    let base = workspace.write("base", &base);
    let reference = reference(&[LAYER, "only.in.reference.weight"], &[]);
    let plan = plan_reference(&base, &workspace.write("reference", &reference)).unwrap();
    let said = plan.report.warnings.join("\n");
    assert_names(&said, &["only.in.reference.weight", "only.in.view.weight"]);
}

#[test]
fn the_report_compares_each_reference_with_the_rule_set() {
    let workspace = Workspace::new();
    let agreed = "model.layers.1.self_attn.o_proj.weight";
    let names = [LAYER, MLA, agreed, "lm_head.weight"];
    let base = workspace.write("base", &Checkpoint::single(small(names)));
    let reference = reference(&[MLA, agreed], &[LAYER, "lm_head.weight"]);
    let plan = plan_reference(&base, &workspace.write("reference", &reference)).unwrap();
    let references: Vec<&ReferenceReport> = plan.report.reports().collect();
    let [compared] = references[..] else {
        panic!("one reference: {references:?}");
    };
    assert_eq!(compared.agreed, 1);
    assert_eq!(compared.only_in_reference, [MLA]);
    assert_eq!(compared.only_by_rules, [LAYER]);
}

#[test]
fn a_reference_that_quantizes_nothing_is_an_error_or_a_warning_that_names_it() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(small([LAYER])));
    let reference = workspace.write("plain-reference", &reference(&[], &[LAYER]));
    let said = match plan_reference(&base, &reference) {
        Ok(plan) => plan.report.warnings.join("\n"),
        Err(error) => error.to_string(),
    };
    assert_names(&said, &["plain-reference"]);
}

#[test]
fn selections_are_ored() {
    let workspace = Workspace::new();
    let names = [LAYER, MLA, "other.weight", "kept.weight"];
    let base = Checkpoint::single(small(names));
    let reference = workspace.write("reference", &reference(&[MLA], &[LAYER]));
    let request = QuantizeParams {
        rules: Some(RuleSet::Exact),
        references: vec![reference.into()],
        patterns: vec!["none".to_owned(), r"oth.*".to_owned()],
        ..QuantizeParams::default()
    };
    assert_view(&Wanted::new(base).fp8(request, [LAYER, MLA, "other.weight"]));
}

/// The experts of a module, fused or two single ones.
fn experts(module: &str, is_fused: bool) -> Vec<String> {
    if is_fused {
        let names = ["gate_up_proj", "down_proj"];
        return names.map(|name| format!("{module}.{name}")).into();
    }
    let of_one = |i: usize| {
        let names = ["gate_proj", "up_proj", "down_proj"];
        names.map(|name| format!("{module}.{i}.{name}.weight"))
    };
    [0, 1].map(of_one).concat()
}

/// A view of experts of `ours` by a reference of `theirs`; `true` is fused.
fn plan_experts(ours: &[(&str, bool)], theirs: &[(&str, bool)]) -> Plan {
    let workspace = Workspace::new();
    let all = |modules: &[(&str, bool)]| -> Vec<String> {
        let modules = modules.iter();
        modules
            .flat_map(|(module, is_fused)| experts(module, *is_fused))
            .collect()
    };
    let (ours, theirs) = (all(ours), all(theirs));
    let shape = |name: &str| -> &[usize] {
        match name {
            _ if name.ends_with("experts.gate_up_proj") => &[2, 4, 4],
            _ if name.ends_with("experts.down_proj") => &[2, 4, 2],
            _ if name.ends_with(".down_proj.weight") => &[4, 2],
            _ => &[2, 4],
        }
    };
    let tensors = ours.iter().map(|name| bf16(name, shape(name)));
    let base = workspace.write("base", &Checkpoint::single(tensors));
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    let reference = workspace.write("reference", &reference(&theirs, &[]));
    plan_reference(&base, &reference).unwrap()
}

const MAIN: [&str; 2] = ["model.layers.0.mlp.experts", "model.layers.1.mlp.experts"];
const MTP: &str = "mtp.layers.0.mlp.experts";

#[test]
fn experts_in_another_form_than_the_reference_has_them_are_warned_of_with_what_changes_the_form() {
    for (is_fused, hint) in [(true, "use experts: unfuse"), (false, "use experts: fuse")] {
        let ours = MAIN.map(|module| (module, is_fused));
        let theirs = MAIN.map(|module| (module, !is_fused));
        let plan = plan_experts(&ours, &theirs);
        assert_eq!(fp8_names(&plan), BTreeSet::new());
        let warnings = &plan.report.warnings;
        let about = |w: &&Warning| w.code() == Code::BadReference;
        let about: Vec<&Warning> = warnings.iter().filter(about).collect();
        let [warning] = about[..] else {
            panic!("one warning of the reference: {warnings:?}");
        };
        assert_names(warning, &[hint, MAIN[0], MAIN[1], "reference"]);
        assert!(!warning.text().contains('{'), "{warning}");
    }
}

#[test]
fn the_change_has_a_scope_where_other_experts_are_as_the_reference_has_them() {
    let ours = [(MAIN[0], true), (MAIN[1], true), (MTP, true)];
    let plan = plan_experts(&ours, &[(MAIN[0], true), (MAIN[1], true), (MTP, false)]);
    let said = plan.report.warnings.join("\n");
    assert_names(
        &said,
        &[r"use experts: {unfuse: mtp\.layers\.[0-9]+\.mlp\.experts}"],
    );
    // Numbers tell them apart here.
    let plan = plan_experts(&ours, &[(MAIN[0], false), (MAIN[1], true), (MTP, true)]);
    let said = plan.report.warnings.join("\n");
    assert_names(
        &said,
        &[r"use experts: {unfuse: model\.layers\.0\.mlp\.experts}"],
    );
}

#[test]
fn experts_in_the_form_of_the_reference_are_not_warned_of() {
    for is_fused in [true, false] {
        let modules = MAIN.map(|module| (module, is_fused));
        let plan = plan_experts(&modules, &modules);
        let warnings = plan.report.warnings.iter();
        let codes: Vec<Code> = warnings.map(Warning::code).collect();
        assert!(!codes.contains(&Code::BadReference), "{codes:?}");
        assert!(!fp8_names(&plan).is_empty());
    }
}

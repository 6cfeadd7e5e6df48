//! An edit after which config.json would not tell what the tensors are is refused, or warned of.

use std::fs;

use ckptfs::error::{Code, Error};
use ckptfs::ops::{Operations, Precision, RuleSet};
use ckptfs::recipe::Plan;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, of_values, tensor};
use crate::common::{Workspace, assert_names};
use crate::fixture::{Edit, request};

const QUANTIZED: &str = r#"{
  "model_type": "x",
  "text_config": {"hidden_size": 256},
  "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
}"#;
const LAYER: &str = "model.layers.0.mlp.down_proj.weight";

/// A checkpoint of one weight in block FP8.
fn quantized() -> Checkpoint {
    let scales = format!("{LAYER}_scale_inv");
    let scales = of_values(&scales, Dtype::F32, &[2, 2], &[1.0; 4]);
    Checkpoint::single([
        tensor(LAYER, Dtype::F8_E4M3, &[256, 256], 1),
        scales,
        bf16("model.norm.weight", &[256]),
    ])
    .config(QUANTIZED)
}

fn unquantized() -> Checkpoint {
    Checkpoint::single([bf16(LAYER, &[128, 128]), bf16("model.norm.weight", &[128])])
        .config(r#"{"model_type": "x", "torch_dtype": "bfloat16"}"#)
}

fn plan(
    checkpoint: &Checkpoint,
    edits: &[Edit],
    operations: fn(&mut Operations),
) -> Result<Plan, Error> {
    let workspace = Workspace::new();
    let base = workspace.write("base", checkpoint);
    let lying = workspace.path().join("lying.json");
    fs::write(&lying, "{\"model_type\": \"x\"}").unwrap();
    let add = format!("config.json={}", lying.display());
    let edits = edits.iter().map(|(kind, text)| match *kind {
        "add_file" => (*kind, &*add),
        _ => (*kind, *text),
    });
    let edits: Vec<Edit> = edits.collect();
    request(base, &edits).with(operations).plan()
}

fn to_bf16(asked: &mut Operations) {
    asked.dtype.to = Some(Precision::Bf16);
}

#[test]
fn weights_that_stay_quantized_stay_declared() {
    for edits in [
        &[("unset", "quantization_config")][..],
        &[("set", "quantization_config=null")],
        &[("promote", "text_config")],
        &[("drop_file", "config.json")],
        &[("drop_file", "*")],
        &[("add_file", "")],
    ] {
        let error = plan(&quantized(), edits, |_| {}).expect_err(&format!("{edits:?}"));
        assert_eq!(error.code(), Code::ConfigMismatch, "{error}");
        assert_names(&error.to_string(), &["quantization", LAYER, "dtype"]);
        assert!(plan(&quantized(), edits, to_bf16).is_ok(), "{edits:?}");
    }
    let kept = [("promote", "text_config"), ("keep", "quantization_config")];
    assert_eq!(
        plan(&quantized(), &kept, |_| {}).unwrap().report.warnings,
        [""; 0]
    );
}

#[test]
fn block_fp8_is_declared_to_be_what_it_is() {
    for (edit, words) in [
        (
            "quantization_config.quant_method=\"gptq\"",
            &["quant_method \"gptq\""][..],
        ),
        ("quantization_config.weight_block_size=[64, 64]", &[LAYER]),
        (
            "quantization_config.weight_block_size=\"x\"",
            &["weight_block_size"],
        ),
    ] {
        let error = plan(&quantized(), &[("set", edit)], |_| {}).expect_err(edit);
        assert_eq!(error.code(), Code::ConfigMismatch, "{error}");
        assert_names(&error.to_string(), words);
    }
    let other = [
        ("set", "quantization_config.fmt=\"e4m3\""),
        ("set", "model_type=\"y\""),
    ];
    assert_eq!(
        plan(&quantized(), &other, |_| {}).unwrap().report.warnings,
        [""; 0]
    );
    let skipped = "quantization_config.modules_to_not_convert=[\"model.layers.0.mlp.down_proj\"]";
    let warnings = plan(&quantized(), &[("set", skipped)], |_| {})
        .unwrap()
        .report
        .warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.code() == Code::SkipList),
        "{warnings:?}"
    );
}

#[test]
fn tensors_of_another_tool_stay_declared_too() {
    let gptq = Checkpoint::single([tensor("a.qweight", Dtype::I32, &[8, 8], 1)])
        .config(r#"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#);
    let error = plan(&gptq, &[("unset", "quantization_config")], |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::ConfigMismatch);
    assert_names(&error.to_string(), &["a.qweight"]);
    assert!(plan(&gptq, &[("set", "quantization_config.bits=8")], |_| {}).is_ok());
}

#[test]
fn an_edit_of_something_else_is_not_held_against_what_the_base_declares() {
    let undeclared = quantized().config("{\"model_type\": \"x\"}");
    let edited = plan(&undeclared, &[("set", "model_type=\"y\"")], |_| {});
    assert_eq!(edited.unwrap().report.warnings, [""; 0]);
    // A declaration that is out of date can go.
    let stale = unquantized().config(QUANTIZED);
    let edited = plan(&stale, &[("unset", "quantization_config")], |_| {});
    assert_eq!(edited.unwrap().report.warnings, [""; 0]);
    let declared = [("set", "quantization_config={\"quant_method\": \"fp8\"}")];
    let warnings = plan(&unquantized(), &declared, |_| {})
        .unwrap()
        .report
        .warnings;
    assert_eq!(warnings[0].code(), Code::ConfigMismatch);
    assert_names(warnings[0].text(), &["quant_method \"fp8\"", "no tensor"]);
}

#[test]
fn what_the_view_writes_itself_cannot_be_set_to_something_else() {
    let fp8 = |asked: &mut Operations| asked.quantize.rules = Some(RuleSet::Exact);
    for (edit, operations, words) in [
        (
            "torch_dtype=\"float32\"",
            to_bf16 as fn(&mut Operations),
            &["torch_dtype", "\"bfloat16\"", "\"float32\""][..],
        ),
        (
            "quantization_config={\"quant_method\": \"fp8\"}",
            fp8,
            &["quantization_config", "activation_scheme"],
        ),
    ] {
        let error = plan(&unquantized(), &[("set", edit)], operations).expect_err(edit);
        assert_eq!(error.code(), Code::EditConflict, "{error}");
        assert_names(&error.to_string(), words);
    }
    let gone = [("set", "quantization_config.fmt=\"e4m3\"")];
    let error = plan(&quantized(), &gone, to_bf16).unwrap_err();
    assert_eq!(error.code(), Code::EditConflict);
    let same = plan(
        &unquantized(),
        &[("set", "torch_dtype=\"bfloat16\"")],
        to_bf16,
    );
    assert!(same.is_ok());
    let notes = plan(
        &unquantized().config(QUANTIZED),
        &[("unset", "quantization_config")],
        fp8,
    );
    assert_names(
        &notes.unwrap().report.notes.join("\n"),
        &["quantization_config", "its own"],
    );
}

#[test]
fn a_dtype_that_no_tensor_has_is_warned_of() {
    let warnings = |edit: &str| {
        let plan = plan(&unquantized(), &[("set", edit)], |_| {}).unwrap();
        plan.report.warnings
    };
    for edit in ["torch_dtype=\"float32\"", "dtype=\"float16\""] {
        let warnings = warnings(edit);
        assert_eq!(warnings[0].code(), Code::ConfigMismatch, "{edit}");
        assert_names(warnings[0].text(), &[edit, "no tensor", "dtype: f"]);
    }
    assert_eq!(warnings("dtype=\"bfloat16\""), [""; 0]);
    assert_eq!(warnings("dtype=\"auto\""), [""; 0]);
}

//! Projections that cannot change form, and what is said of them.

use ckptfs::error::Code;
use ckptfs::ops::LinearAttention::{self, Join, Split};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::oracle::numbers::scale_name;
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

const HEADS: Heads = Heads {
    key_heads: 2,
    ratio: 2,
    key_dim: 4,
    value_dim: 3,
    hidden: 5,
};

fn refusal(checkpoint: &Checkpoint, form: LinearAttention) -> (Code, String) {
    let workspace = Workspace::new();
    let error = plan(&workspace.write("base", checkpoint), form).unwrap_err();
    (error.code(), error.to_string())
}

fn name(projection: &str) -> String {
    format!("{MODULE}.{projection}.weight")
}

#[test]
fn a_projection_that_is_missing_is_named() {
    let joined = HEADS.joined(Dtype::BF16, 1);
    let split = HEADS.split(&joined);
    for (tensors, form, missing) in [
        (&joined, Split, "in_proj_qkvz"),
        (&joined, Split, "in_proj_ba"),
        (&split, Join, "in_proj_z"),
        (&split, Join, "in_proj_b"),
    ] {
        let missing = name(missing);
        let rest: Vec<TensorData> = tensors
            .iter()
            .filter(|t| t.name != missing)
            .cloned()
            .collect();
        let (code, text) = refusal(&HEADS.checkpoint(&rest), form);
        assert_eq!(code, Code::ProjectionMissing);
        assert_names(&text, &[&missing, "missing", "use patch"]);
    }
}

#[test]
fn a_config_that_does_not_say_the_heads_is_refused() {
    let joined = HEADS.joined(Dtype::BF16, 1);
    let (code, text) = refusal(&Checkpoint::single(joined.clone()).without_config(), Split);
    assert_eq!(code, Code::BadConfig);
    assert_names(&text, &["config.json", "missing"]);
    for (from, to, words) in [
        ("linear_num_key_heads", "other", "linear_num_key_heads"),
        (
            r#"key_head_dim": 4"#,
            r#"key_head_dim": 0"#,
            "linear_key_head_dim",
        ),
        (
            r#"value_head_dim": 3"#,
            r#"value_head_dim": 9999999999"#,
            "linear_value_head_dim",
        ),
        (
            r#"value_heads": 4"#,
            r#"value_heads": 5"#,
            "no multiple of linear_num_key_heads",
        ),
    ] {
        let config = HEADS.config().replace(from, to);
        let (code, text) = refusal(&Checkpoint::single(joined.clone()).config(&config), Split);
        assert_eq!(code, Code::BadConfig, "{text}");
        assert_names(&text, &["config.json", words, "linear_attention"]);
    }
}

#[test]
fn rows_that_are_not_those_of_the_heads_are_refused() {
    let config = HEADS
        .config()
        .replace(r#"key_head_dim": 4"#, r#"key_head_dim": 5"#);
    let joined = HEADS.joined(Dtype::BF16, 1);
    for (tensors, form, first) in [
        (joined.clone(), Split, "in_proj_qkvz"),
        (HEADS.split(&joined), Join, "in_proj_qkv"),
    ] {
        let (code, text) = refusal(&Checkpoint::single(tensors).config(&config), form);
        assert_eq!(code, Code::ConfigMismatch);
        assert_names(&text, &[&name(first), "heads", "config.json"]);
    }
}

#[test]
fn what_is_no_weight_and_weights_that_are_not_alike_are_refused() {
    let joined = HEADS.joined(Dtype::BF16, 1);
    let bias = format!("{MODULE}.in_proj_qkvz.bias");
    let with_bias = [joined.clone(), vec![bf16(&bias, &[40])]].concat();
    let (code, text) = refusal(&HEADS.checkpoint(&with_bias), Split);
    assert_eq!(code, Code::ProjectionLayout);
    assert_names(&text, &[&bias, "only the weight"]);

    let mut split = HEADS.split(&joined);
    split[1] = tensor(&split[1].name, Dtype::F16, &split[1].shape, 1);
    let (code, text) = refusal(&HEADS.checkpoint(&split), Join);
    assert_eq!(code, Code::ProjectionLayout);
    assert_names(
        &text,
        &[&name("in_proj_z"), &name("in_proj_qkv"), "F16", "BF16"],
    );
}

#[test]
fn blocks_that_would_be_cut_are_refused() {
    let heads = Heads {
        key_dim: 64,
        value_dim: 64,
        ..HEADS
    };
    let mut joined = heads.joined(Dtype::F8_E4M3, 1);
    joined[1] = tensor(&joined[1].name, Dtype::BF16, &joined[1].shape, 1);
    let scales = [joined[0].shape[0].div_ceil(128), 1];
    joined.push(tensor(&scale_name(&joined[0].name), Dtype::F32, &scales, 1));
    let (code, text) = refusal(&heads.checkpoint(&joined), Split);
    assert_eq!(code, Code::BadScales);
    assert_names(
        &text,
        &[
            &name("in_proj_qkvz"),
            "FP8",
            "blocks of 128 rows",
            "unquantized",
        ],
    );
}

#[test]
fn both_forms_in_one_view_are_refused() {
    let joined = HEADS.joined(Dtype::BF16, 1);
    let both = [HEADS.split(&joined), joined].concat();
    let (code, text) = refusal(&HEADS.checkpoint(&both), Split);
    assert_eq!(code, Code::NameTaken);
    assert_names(&text, &["second time", "one form only"]);
}

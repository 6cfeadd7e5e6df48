//! Checkpoints that cannot be given the other layout, and what is said of them.

use ckptfs::error::Code;
use ckptfs::ops::NameLayout::{Released, Transformers};
use ckptfs::ops::names::families;

use crate::common::assert_names;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::fixture::*;

const EXPERTS: &str = "model.layers.0.mlp.experts";

fn experts(count: usize) -> Vec<TensorData> {
    let of_each = (0..count).flat_map(|expert| {
        ["gate", "up", "down"].map(|projection| {
            let shape = if projection == "down" { [4, 2] } else { [2, 4] };
            bf16(
                &format!("{EXPERTS}.{expert}.{projection}_proj.weight"),
                &shape,
            )
        })
    });
    of_each.collect()
}

#[test]
fn an_unknown_model_type_is_told_the_known_ones() {
    let (code, text) = refusal(&checkpoint("qwen3_mo", "", &experts(1)), Transformers);
    assert_eq!(code, Code::UnknownModelType);
    assert_names(
        &text,
        &["config.json", "qwen3_mo", "did you mean qwen3_moe?"],
    );
    for model_type in families().flat_map(|family| family.model_types) {
        assert!(text.contains(model_type), "{model_type}");
    }
    for (base, words) in [
        (Checkpoint::single(experts(1)).without_config(), "missing"),
        (Checkpoint::single(experts(1)), "no model_type"),
        (
            Checkpoint::single(experts(1)).config(r#"{"model_type": 7}"#),
            "model_type is 7",
        ),
    ] {
        let (code, text) = refusal(&base, Released);
        assert_eq!(code, Code::UnknownModelType);
        assert_names(&text, &["config.json", words]);
    }
}

#[test]
fn a_weight_that_is_missing_is_named() {
    for missing in ["1.up_proj.weight", "0.gate_proj.weight"] {
        let missing = format!("{EXPERTS}.{missing}");
        let rest = experts(3).into_iter().filter(|t| t.name != missing);
        let base = checkpoint("qwen3_moe", "", &rest.collect::<Vec<_>>());
        let (code, text) = refusal(&base, Transformers);
        assert_eq!(code, Code::NamesIncomplete);
        assert_names(&text, &[&missing, "missing", "gate_up_proj", "use patch"]);
    }
}

#[test]
fn experts_that_config_json_contradicts_are_refused() {
    for (more, words) in [
        (r#", "num_experts": 4"#, "4"),
        (r#", "text_config": {"num_experts": 4}"#, "4"),
        (r#", "hidden_size": 9"#, "hidden_size"),
    ] {
        let (code, text) = refusal(&checkpoint("qwen3_moe", more, &experts(3)), Transformers);
        assert_eq!(code, Code::ConfigMismatch);
        assert_names(&text, &[EXPERTS, words, "config.json"]);
    }
    let fused = bf16(&format!("{EXPERTS}.gate_up_proj"), &[3, 4, 4]);
    let base = checkpoint("qwen3_moe", r#", "num_experts": 4"#, &[fused]);
    assert_eq!(refusal(&base, Released).0, Code::ConfigMismatch);
}

#[test]
fn weights_that_are_not_alike_are_refused() {
    let mut other = experts(2);
    other[3] = bf16(&other[3].name, &[3, 4]);
    let (code, text) = refusal(&checkpoint("qwen3_moe", "", &other), Transformers);
    assert_eq!(code, Code::NamesLayout);
    assert_names(
        &text,
        &["gate_up_proj", "[3, 4]", "[2, 4]", "same number of rows"],
    );

    let flat = bf16(&format!("{EXPERTS}.gate_up_proj"), &[4, 4]);
    let (code, text) = refusal(&checkpoint("qwen3_moe", "", &[flat]), Released);
    assert_eq!(code, Code::NamesLayout);
    assert_names(&text, &["gate_up_proj", "[4, 4]", "[E, rows, columns]"]);

    let odd = bf16(&format!("{EXPERTS}.gate_up_proj"), &[2, 5, 4]);
    let (code, text) = refusal(&checkpoint("qwen3_moe", "", &[odd]), Released);
    assert_eq!(code, Code::NamesLayout);
    assert_names(&text, &["gate", "[5, 4]", "2 tensors"]);
}

#[test]
fn a_view_that_has_both_layouts_is_refused() {
    let fused = bf16(&format!("{EXPERTS}.gate_up_proj"), &[2, 4, 4]);
    let both = [experts(2), vec![fused]].concat();
    let (code, text) = refusal(&checkpoint("qwen3_moe", "", &both), Transformers);
    assert_eq!(code, Code::NameTaken);
    assert_names(&text, &["gate_up_proj", "one layout only"]);

    let both = ["visual.a", "model.visual.a"].map(|name| bf16(name, &[2]));
    let (code, text) = refusal(&checkpoint("qwen2_vl", "", &both), Transformers);
    assert_eq!(code, Code::NameTaken);
    assert_names(&text, &["model.visual.a", "visual.a", "one layout only"]);
}

#[test]
fn heads_that_config_json_does_not_say_or_that_do_not_fit_are_refused() {
    let wqkv = bf16("vision_tower.encoder.blocks.0.wqkv.weight", &[12, 4]);
    for (more, words) in [
        ("", "does not say"),
        (
            r#", "vision_config": {"num_attention_heads": 0}"#,
            "does not say",
        ),
        (
            r#", "vision_config": {"num_attention_heads": 3}"#,
            "3 heads",
        ),
    ] {
        let (code, text) = refusal(
            &checkpoint("kimi_k25", more, std::slice::from_ref(&wqkv)),
            Transformers,
        );
        assert_eq!(code, Code::ConfigMismatch);
        assert_names(&text, &[&wqkv.name, words, "vision_config", "config.json"]);
    }
}

#[test]
fn a_shape_that_claims_many_experts_is_refused_before_they_are_made() {
    let claims = bf16(&format!("{EXPERTS}.down_proj"), &[(1 << 18) + 1, 1, 1]);
    let (code, text) = refusal(&checkpoint("qwen3_moe", "", &[claims]), Released);
    assert_eq!(code, Code::OverLimit);
    assert_names(&text, &["down_proj", "262144"]);
}

//! The plan warns where config.json describes layers or a modality that the view does not have.

use ckptfs::error::Warning;
use ckptfs::ops::{FilterParams, Operations};
use ckptfs::recipe::ViewRequest;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::{Workspace, assert_names};

/// The warnings of the plan of a checkpoint with these tensors and this config, less those that
/// `drop` matches.
fn warnings(names: &[&str], config: &str, drop: &[&str]) -> Vec<Warning> {
    let workspace = Workspace::new();
    let tensors = names.iter().map(|name| bf16(name, &[2]));
    let base = workspace.write("base", &Checkpoint::single(tensors).config(config));
    let request = ViewRequest {
        operations: Operations {
            filter: FilterParams {
                drop: drop.iter().map(|drop| (*drop).to_owned()).collect(),
                ..FilterParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    };
    request.plan().unwrap().report.warnings
}

const FOUR: &[&str] = &[
    "model.embed_tokens.weight",
    "model.layers.0.mlp.weight",
    "model.layers.1.mlp.weight",
    "model.layers.1.mlp.experts.7.weight",
    "model.layers.2.mlp.weight",
    "model.layers.3.mlp.weight",
];

#[test]
fn layers_that_are_left_out_are_warned_of_and_named() {
    for config in [
        r#"{"num_hidden_layers": 4}"#,
        r#"{"text_config": {"num_hidden_layers": 4}}"#,
    ] {
        for (drop, missing) in [
            (r".*layers\.3\..*", "model.layers has no tensors of layer 3"),
            (r".*layers\.[12]\..*", "of layer 1..2"),
            (r".*layers\.[02]\..*", "of layer 0, 2"),
            (r".*layers\..*", "the tensors of all layers are left out"),
        ] {
            let warnings = warnings(FOUR, config, &[drop]);
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            let parts = ["num_hidden_layers", "config.json is 4", missing];
            assert_names(&warnings[0], &parts);
        }
        assert_eq!(warnings(FOUR, config, &[]), [""; 0]);
    }
    // A list of MTP layers is not that of the model's own.
    let names = [FOUR, &["mtp.layers.0.mlp.weight"]].concat();
    let config = r#"{"num_hidden_layers": 4}"#;
    let only_mtp = warnings(&names, config, &[r"model\.layers.*"]);
    assert_eq!(only_mtp.len(), 1, "{only_mtp:?}");
    assert_names(&only_mtp[0], &["the tensors of all layers are left out"]);
    // Also where the source lacks them.
    let warnings = warnings(&FOUR[..5], r#"{"num_hidden_layers": 4}"#, &[]);
    assert_names(&warnings.join("\n"), &["no tensors of layer 3"]);
}

#[test]
fn a_modality_that_is_left_out_is_warned_of_if_the_source_had_it() {
    let names = &[
        "model.language_model.layers.0.mlp.weight",
        "model.visual.blocks.0.attn.weight",
        "audio_tower.layers.0.attn.weight",
    ];
    let config = r#"{"text_config": {"num_hidden_layers": 1}, "vision_config": {"depth": 9},
        "audio_config": {"num_hidden_layers": 9}}"#;
    assert_eq!(warnings(names, config, &[]), [""; 0]);
    for (drop, key) in [(".*visual.*", "vision_config"), ("audio.*", "audio_config")] {
        let warnings = warnings(names, config, &[drop]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_names(&warnings[0], &[key, "left out"]);
    }
    // A text model that was saved apart, its config not corrected.
    assert_eq!(warnings(&names[..1], config, &[]), [""; 0]);
    let none = r#"{"vision_config": null}"#;
    assert_eq!(warnings(names, none, &[".*visual.*"]), [""; 0]);
}

#[test]
fn what_is_no_contradiction_is_not_warned_of() {
    let cases: &[(&[&str], &str)] = &[
        // MTP blocks are numbered behind the last layer, or have a list of their own.
        (
            FOUR,
            r#"{"num_hidden_layers": 3, "num_nextn_predict_layers": 1}"#,
        ),
        (
            &["model.layers.0.w", "mtp.layers.0.w"],
            r#"{"num_hidden_layers": 1}"#,
        ),
        // A decoder that is shorter than its encoder.
        (
            &[
                "encoder.layers.0.w",
                "encoder.layers.1.w",
                "decoder.layers.0.w",
            ],
            r#"{"num_hidden_layers": 2}"#,
        ),
        (&["h.0.w", "h.1.w"], r#"{"num_hidden_layers": 2}"#),
        (&["bert.encoder.layer.0.w"], r#"{"num_hidden_layers": 1}"#),
        // Layers that share their tensors, and modules that are no layers.
        (
            &["encoder.albert_layer_groups.0.albert_layers.0.w"],
            r#"{"num_hidden_layers": 12}"#,
        ),
        (&["classifier.0.w"], r#"{"num_hidden_layers": 12}"#),
        // Each counts as two.
        (
            &["model.layers.0.w"],
            r#"{"num_hidden_layers": 2, "num_layers": 1}"#,
        ),
        (&["model.layers.0.w"], r#"{"num_hidden_layers": 0}"#),
        (&["model.layers.0.w"], r#"{"num_hidden_layers": "many"}"#),
        (&["model.layers.0.w"], r#"{"num_hidden_layers": NaN}"#),
        (&["model.layers.0.w"], "{}"),
    ];
    for (names, config) in cases {
        assert_eq!(warnings(names, config, &[]), [""; 0], "{names:?} {config}");
    }
}

//! Groups of compressed-tensors that are quantized in several ways.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names};
use crate::definition::{self, Scheme};
use crate::in_dtype;
use crate::others::{TARGETS, config, refusal, shown_config};

const ATTENTION: &str = "model.layers.0.self_attn.o_proj.weight";
const UP: &str = "model.layers.0.mlp.up_proj.weight";
const DOWN: &str = "model.layers.0.mlp.down_proj.weight";
const HEAD: &str = "lm_head.weight";

/// The weight of each group, how it is quantized, and what config.json says of it.
fn groups() -> Vec<(&'static str, Scheme, Value)> {
    let eight = |kind: &str, targets: Value| json!({"targets": targets, "weights": {"num_bits": 8, "type": kind, "strategy": "channel", "symmetric": true}});
    let four = |symmetric: bool, group: u64, targets: Value| json!({"targets": targets, "format": "pack-quantized", "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group, "symmetric": symmetric}});
    vec![
        (
            ATTENTION,
            Scheme::Fp8Channel,
            eight("float", json!(["re:.*self_attn.*"])),
        ),
        (
            UP,
            Scheme::Int4Of32,
            four(true, 32, json!(["re:.*up_proj$"])),
        ),
        (
            DOWN,
            Scheme::Int4Asymmetric,
            four(false, 128, json!(["Linear"])),
        ),
        (HEAD, Scheme::Int8Channel, eight("int", json!(["lm_head"]))),
    ]
}

fn declared() -> Value {
    let groups = groups().into_iter().enumerate();
    let groups: BTreeMap<String, Value> = groups
        .map(|(i, (.., mut group))| {
            group["format"].is_null().then(|| {
                let kind = group["weights"]["type"].as_str().unwrap();
                group["format"] = json!(format!("{kind}-quantized"));
            });
            (format!("group_{i}"), group)
        })
        .collect();
    json!({"quant_method": "compressed-tensors", "format": "mixed-precision", "ignore": ["model.embed_tokens"], "config_groups": groups})
}

fn weight(name: &str) -> TensorData {
    tensor(name, Dtype::BF16, &[16, 256], name.len() as u64)
}

fn stored() -> Vec<TensorData> {
    let groups = groups().into_iter();
    let mut all: Vec<TensorData> = groups
        .flat_map(|(name, scheme, _)| definition::tensors(&weight(name), scheme))
        .collect();
    all.push(bf16("model.embed_tokens.weight", &[8, 256]));
    all
}

#[test]
fn each_weight_is_read_as_its_group_says() {
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(stored()).config(&config(&declared()));
    let base = workspace.write("base", &checkpoint);
    for (to, dtype) in TARGETS {
        let plan = in_dtype(&base, to).unwrap();
        let found = tensors(&plan);
        assert_eq!(found.len(), 5);
        for (name, scheme, _) in groups() {
            let expected = definition::numbers(&weight(name), scheme, dtype);
            assert!(found[name] == expected, "{name} in {dtype:?}");
        }
        assert!(shown_config(&plan).get("quantization_config").is_none());
    }
}

#[test]
fn a_group_that_cannot_be_read_is_refused_by_name_and_only_if_it_is_asked_for() {
    let mut declared = declared();
    declared["config_groups"]["group_1"]["weights"]["num_bits"] = json!(3);
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(stored()).config(&config(&declared));
    let base = workspace.write("base", &checkpoint);
    assert_names(&refusal(&base), &[UP, "group_1", "num_bits 3"]);
    let request = ckptfs::recipe::ViewRequest::new(&base).with(|asked| {
        asked.dtype.to = Some(ckptfs::ops::Precision::Bf16);
        asked.filter.drop = vec![UP.to_owned()];
    });
    let found = tensors(&request.plan().unwrap());
    assert_eq!(found.len(), 4);
    assert!(found.values().all(|tensor| tensor.dtype == Dtype::BF16));
}

//! Groups of MXFP4, MXFP8 and NVFP4 next to integers and FP8 in one checkpoint of compressed-tensors.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::block_floats::{self, Format, amax};
use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names};
use crate::definition::{self, Scheme};
use crate::in_dtype;
use crate::others::{TARGETS, config, refusal, shown_config};

const QUERY: &str = "model.layers.0.self_attn.q_proj.weight";
const OUTPUT: &str = "model.layers.0.self_attn.o_proj.weight";
const GATE: &str = "model.layers.0.mlp.experts.0.gate_proj.weight";
const UP: &str = "model.layers.0.mlp.experts.0.up_proj.weight";
const DOWN: &str = "model.layers.0.mlp.experts.0.down_proj.weight";

/// How the weight of a group is quantized.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Integers(Scheme),
    Floats(Format),
}

use Kind::{Floats, Integers};

impl Kind {
    fn tensors(self, weight: &TensorData) -> Vec<TensorData> {
        match self {
            Integers(scheme) => definition::tensors(weight, scheme),
            Floats(format) => block_floats::tensors(weight, format, amax(weight)),
        }
    }

    fn numbers(self, weight: &TensorData, dtype: Dtype) -> TensorData {
        match self {
            Integers(scheme) => definition::numbers(weight, scheme, dtype),
            Floats(format) => block_floats::numbers(weight, format, amax(weight), dtype),
        }
    }

    /// What config.json says of its weights.
    fn declared(self) -> (&'static str, Value) {
        let float = |bits: u64, strategy: &str, group: u64, scales: &str| json!({"num_bits": bits, "type": "float", "strategy": strategy, "group_size": group, "symmetric": true, "scale_dtype": scales});
        match self {
            Floats(Format::Mxfp4) => ("mxfp4-pack-quantized", float(4, "group", 32, "torch.uint8")),
            Floats(Format::Mxfp8) => ("mxfp8-quantized", float(8, "group", 32, "torch.uint8")),
            Floats(_) => (
                "nvfp4-pack-quantized",
                float(4, "tensor_group", 16, "torch.float8_e4m3fn"),
            ),
            Integers(Scheme::Fp8Channel) => (
                "float-quantized",
                json!({"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true}),
            ),
            Integers(_) => (
                "pack-quantized",
                json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": true}),
            ),
        }
    }
}

const GROUPS: [(&str, Kind, &str); 5] = [
    (QUERY, Floats(Format::Mxfp8), "re:.*self_attn.q_proj$"),
    (
        OUTPUT,
        Integers(Scheme::Fp8Channel),
        "re:.*self_attn.o_proj$",
    ),
    (GATE, Floats(Format::Mxfp4), "re:.*gate_proj$"),
    (UP, Floats(Format::Nvfp4), "re:.*up_proj$"),
    (DOWN, Integers(Scheme::Int4Of32), "re:.*down_proj$"),
];

/// A declaration of all groups, of which that number `by_class` is for every other module.
fn declared(by_class: Option<usize>) -> Value {
    let groups = GROUPS.iter().enumerate().map(|(i, (_, kind, target))| {
        let (format, weights) = kind.declared();
        let target = if by_class == Some(i) {
            "Linear"
        } else {
            target
        };
        let group = json!({"targets": [target], "format": format, "weights": weights});
        (format!("group_{i}"), group)
    });
    let groups: serde_json::Map<String, Value> = groups.collect();
    json!({"quant_method": "compressed-tensors", "format": "mixed-precision", "ignore": ["lm_head"], "config_groups": groups})
}

fn weight(name: &str) -> TensorData {
    tensor(name, Dtype::BF16, &[16, 256], name.len() as u64)
}

fn stored() -> Vec<TensorData> {
    let groups = GROUPS.iter();
    groups
        .flat_map(|(name, kind, _)| kind.tensors(&weight(name)))
        .collect()
}

/// Checks what a checkpoint that declares `declared` is read as.
fn assert_groups(declared: &Value) {
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(stored()).config(&config(declared));
    let base = workspace.write("base", &checkpoint);
    for (to, dtype) in TARGETS {
        let plan = in_dtype(&base, to).unwrap();
        let found = tensors(&plan);
        assert_eq!(found.len(), GROUPS.len());
        for (name, kind, _) in GROUPS {
            let expected = kind.numbers(&weight(name), dtype);
            assert!(found[name] == expected, "{name} in {dtype:?}, {declared}");
        }
        assert!(shown_config(&plan).get("quantization_config").is_none());
    }
}

#[test]
fn groups_are_read_by_name() {
    assert_groups(&declared(None));
}

#[test]
fn of_groups_for_a_class_the_one_that_has_such_tensors_is_meant() {
    for by_class in 0..GROUPS.len() {
        assert_groups(&declared(Some(by_class)));
    }
    let mut all = declared(None);
    for (i, _) in GROUPS.iter().enumerate() {
        all["config_groups"][format!("group_{i}")]["targets"] = json!(["Linear"]);
    }
    assert_groups(&all);
}

#[test]
fn a_weight_whose_tensors_are_of_another_group_than_its_name_is_refused() {
    let mut declared = declared(None);
    let groups = &mut declared["config_groups"];
    groups["group_2"]["targets"] = json!(["re:.*down_proj$"]);
    groups["group_4"]["targets"] = json!(["re:.*gate_proj$"]);
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(stored()).config(&config(&declared));
    let base = workspace.write("base", &checkpoint);
    assert_names(&refusal(&base), &[GATE]);
}

//! Where tensors come from: sources are held against the bytes of the view, steps against the request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ckptfs::ops::{
    DtypeParams, Experts, ExpertsParams, LoraParams, LoraRequest, Operations, PatchParams,
    Precision, QuantizeParams, RenameParams,
};
use ckptfs::provenance::{Files, Lineage, MAX_ATTRIBUTE_BYTES};
use ckptfs::recipe::{Places, Plan, ViewRequest};
use ckptfs::view::View;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::Workspace;
use crate::common::adapter::{Adapter, numbers};
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, small, tensor};
use crate::common::readback::read_all;

/// The provenance of every tensor, as JSON.
pub(crate) fn lineages(request: &ViewRequest) -> BTreeMap<String, Value> {
    let plan = request.plan().unwrap();
    let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
    tensors
        .map(|t| {
            let lineage = Lineage::trace(&plan, t);
            (t.name.to_string(), serde_json::to_value(lineage).unwrap())
        })
        .collect()
}

fn operators(steps: &Value) -> Vec<&str> {
    let steps = steps.as_array().map_or(&[][..], Vec::as_slice);
    steps
        .iter()
        .map(|s| s["operator"].as_str().unwrap())
        .collect()
}

/// The tensors that `lineage` says it comes from: checkpoint, name.
fn from(lineage: &Value) -> Vec<(String, &str)> {
    let sources = lineage["from"].as_array().unwrap().iter();
    let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    sources
        .map(|s| {
            (
                last(s["checkpoint"].as_str().unwrap()),
                s["tensor"].as_str().unwrap(),
            )
        })
        .collect()
}

/// The bytes of the sources, one after the other, read from the files as they are named.
fn source_bytes(lineage: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for source in lineage["from"].as_array().unwrap() {
        let file = PathBuf::from(source["checkpoint"].as_str().unwrap());
        let file = std::fs::read(file.join(source["file"].as_str().unwrap())).unwrap();
        let [begin, end] = [0, 1].map(|i| source["bytes"][i].as_u64().unwrap() as usize);
        bytes.extend(&file[begin..end]);
    }
    bytes
}

/// The bytes of every tensor of the view.
fn tensor_bytes(plan: &Plan) -> BTreeMap<String, Vec<u8>> {
    let files = read_all(plan);
    let of_shard = |shard: &ckptfs::layout::PlannedShard| {
        let file = files[&PathBuf::from(&shard.name)].clone();
        let tensors = shard.tensors.clone().into_iter();
        tensors.map(move |t| {
            let range = t.offset as usize..(t.offset + t.len) as usize;
            (t.name.to_string(), file[range].to_vec())
        })
    };
    plan.shards.iter().flat_map(of_shard).collect()
}

fn experts() -> Vec<TensorData> {
    let name = |end: &str| format!("model.layers.0.mlp.experts.{end}");
    vec![
        tensor(&name("gate_up_proj"), Dtype::BF16, &[3, 4, 6], 1),
        tensor(&name("down_proj"), Dtype::BF16, &[3, 6, 2], 2),
    ]
}

const MOE: &str = r#"{"model_type": "test_moe", "hidden_size": 6}"#;

#[test]
fn the_bytes_of_moved_tensors_are_where_their_provenance_says() {
    let workspace = Workspace::new();
    let mut tensors = experts();
    tensors.extend(small(["model.norm.weight", "model.empty"]));
    tensors.push(tensor("model.none", Dtype::F32, &[0, 3], 1));
    tensors.push(tensor("model.nothing", Dtype::F32, &[3, 0], 1));
    let base = workspace.write("base", &Checkpoint::single(tensors).config(MOE));
    let extra = workspace.write("extra", &Checkpoint::single(small(["mtp.a", "mtp.b"])));
    let plain = ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: vec![extra.into()],
            },
            rename: RenameParams {
                rules: vec![r"^mtp\.(.)=mtp.layers.0.$1".to_owned()],
            },
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    let unfused = ViewRequest {
        operations: Operations {
            experts: ExpertsParams::all(Experts::Unfuse),
            ..Operations::default()
        },
        ..plain.clone()
    };
    let unfused_directory = crate::common::materialized(&workspace, "unfused", &unfused);
    let fused = ViewRequest {
        operations: Operations {
            experts: ExpertsParams::all(Experts::Fuse),
            ..Operations::default()
        },
        ..ViewRequest::new(unfused_directory)
    };
    for request in [&plain, &unfused, &fused] {
        let bytes = tensor_bytes(&request.plan().unwrap());
        let lineages = lineages(request);
        assert_eq!(lineages.len(), bytes.len());
        for (name, lineage) in &lineages {
            assert_eq!(source_bytes(lineage), bytes[name], "{name}");
        }
    }
    let steps = |request: &ViewRequest, name: &str| lineages(request)[name]["steps"].clone();
    assert_eq!(steps(&plain, "model.norm.weight"), json!([]));
    assert_eq!(steps(&plain, "model.none"), json!([]));
    assert_eq!(steps(&plain, "model.nothing"), json!([]));
    assert_eq!(
        steps(&plain, "mtp.layers.0.b"),
        json!([{"operator": "rename", "from": "mtp.b", "to": "mtp.layers.0.b"}])
    );
    // Expert 1 of three, the second half of its four rows of six bf16.
    assert_eq!(
        steps(&unfused, "model.layers.0.mlp.experts.1.up_proj.weight"),
        json!([{"operator": "slice", "bytes": [48 + 24, 48 + 48]}])
    );
    let lineages = lineages(&fused);
    let gate_up = &lineages["model.layers.0.mlp.experts.gate_up_proj"];
    assert_eq!(gate_up["steps"], json!([{"operator": "join", "parts": 6}]));
    assert_eq!(gate_up["from"].as_array().unwrap().len(), 6);
}

#[test]
fn a_chain_of_operators_is_told_in_its_order() {
    let workspace = Workspace::new();
    let q = "model.layers.0.self_attn.q_proj";
    let weight = format!("{q}.weight");
    let tensors = [
        numbers(&weight, Dtype::F32, &[130, 200]),
        numbers("model.norm.weight", Dtype::F32, &[200]),
    ];
    let base = workspace.write("base", &Checkpoint::single(tensors));
    let adapter = Adapter::new(4, 6.0).linear(q, [130, 200], 4);
    let adapter = adapter.write(&workspace, "lora");
    let request = ViewRequest {
        operations: Operations {
            lora: LoraParams {
                adapters: vec![LoraRequest {
                    adapter: adapter.clone().into(),
                    weight: 0.5,
                }],
                ..LoraParams::default()
            },
            rename: RenameParams {
                rules: vec!["self_attn=attn".to_owned()],
            },
            dtype: DtypeParams {
                to: Some(Precision::Bf16),
            },
            quantize: QuantizeParams {
                patterns: vec![".*q_proj.*".to_owned()],
                ..QuantizeParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    let lineages = lineages(&request);
    let new = "model.layers.0.attn.q_proj.weight";
    for (name, gives) in [
        (new.to_owned(), "codes"),
        (format!("{new}_scale_inv"), "scales"),
    ] {
        assert_eq!(
            lineages[&name]["steps"],
            json!([
                {"operator": "lora", "kind": "LoRA", "rank": 4, "scaling": 0.75,
                 "with": [adapter.to_str().unwrap()]},
                {"operator": "rename", "from": weight, "to": new},
                {"operator": "cast", "to": "BF16"},
                {"operator": "fp8", "gives": gives, "block": [128, 128], "scale_fmt": "ue8m0"},
            ]),
            "{name}"
        );
        let sources = from(&lineages[&name]);
        assert_eq!(sources[0], ("base".to_owned(), &*weight));
        let names: Vec<&str> = sources[1..].iter().map(|(_, name)| *name).collect();
        assert_eq!(sources.len(), 3);
        assert!(sources[1..].iter().all(|(of, _)| of == "lora"));
        assert!(
            names.iter().any(|name| name.contains("lora_A")),
            "{names:?}"
        );
        assert!(
            names.iter().any(|name| name.contains("lora_B")),
            "{names:?}"
        );
    }
    assert_eq!(operators(&lineages["model.norm.weight"]["steps"]), ["cast"]);
}

#[test]
fn what_is_done_to_one_model_of_a_merge_is_told_of_that_model() {
    let workspace = Workspace::new();
    let plain = |name: &str| Checkpoint::single([numbers(name, Dtype::BF16, &[128, 128])]);
    workspace.write("a", &plain("model.layers.0.q.weight"));
    let scales = TensorData::new(
        "model.layers.0.q.weight_scale_inv",
        Dtype::F32,
        &[1, 1],
        1f32.to_le_bytes().to_vec(),
    );
    let codes = tensor("model.layers.0.q.weight", Dtype::F8_E4M3, &[128, 128], 1);
    workspace.write("b", &Checkpoint::single([codes, scales]));
    let recipe = workspace.path().join("recipe.yml");
    let text = "merge_method: slerp\nbase_model: a\nparameters: {t: 0.3}\nmodels: [{model: a}, {model: b}]\ndtype: bfloat16\n";
    std::fs::write(&recipe, text).unwrap();
    let request = ViewRequest::from_recipe(&recipe, &Places::default()).unwrap();
    let lineages = lineages(&request);
    let lineage = &lineages["model.layers.0.q.weight"];
    assert_eq!(
        lineage["steps"],
        json!([{"operator": "merge", "formula": "slerp", "t": 0.3, "computed_in": "BF16", "given_in": "BF16"}])
    );
    let name = "model.layers.0.q.weight";
    let scales = "model.layers.0.q.weight_scale_inv";
    let expected = [("a", name), ("b", name), ("b", scales)];
    assert_eq!(
        from(lineage),
        expected.map(|(of, name)| (of.to_owned(), name))
    );
    let steps = |i: usize| operators(&lineage["from"][i]["steps"]);
    assert_eq!(
        (steps(0), steps(1), steps(2)),
        (vec![], vec!["dequantize"], vec!["dequantize"])
    );
}

/// A base with `layers` layers, and a patched FP8 view of it.
pub(crate) fn layered(layers: usize) -> Workspace {
    let workspace = Workspace::new();
    let tensors = (0..layers).flat_map(|i| {
        [
            bf16(&format!("model.layers.{i}.mlp.up_proj.weight"), &[4, 4]),
            bf16(&format!("model.layers.{i}.norm.weight"), &[4]),
        ]
    });
    workspace.write("base", &Checkpoint::single(tensors).config(MOE));
    workspace.write("extra", &Checkpoint::single(small(["mtp.a"])));
    workspace
}

#[test]
fn every_file_has_an_account_that_fits_into_an_extended_attribute() {
    for (layers, is_summary) in [(12, false), (1500, true)] {
        let workspace = layered(layers);
        let request = ViewRequest {
            operations: Operations {
                quantize: QuantizeParams {
                    patterns: vec![".*up_proj.*".to_owned()],
                    ..QuantizeParams::default()
                },
                ..Operations::default()
            },
            ..ViewRequest::new(workspace.path().join("base"))
        };
        let plan = Arc::new(request.plan().unwrap());
        let files = Files::new(plan.clone());
        let told = |name: &str| -> Value {
            let entry = plan.view.lookup(View::ROOT, name.as_ref()).unwrap();
            let json = files.json(entry).unwrap();
            assert!(json.len() <= MAX_ATTRIBUTE_BYTES);
            serde_json::from_slice(&json).unwrap()
        };
        let shard = told("model.safetensors");
        let tensors = &plan.shards[0].tensors;
        assert_eq!(shard["kind"], "shard");
        assert_eq!(shard["header_bytes"], json!([0, tensors[0].offset]));
        if is_summary {
            assert_eq!(shard["tensors"], tensors.len());
            assert_eq!(shard["groups"].as_array().unwrap().len(), 3);
            assert!(
                shard["summary"]
                    .as_str()
                    .unwrap()
                    .contains("JSON plan with provenance")
            );
        } else {
            let expected = lineages(&request);
            let found = shard["tensors"].as_array().unwrap();
            assert_eq!(found.len(), expected.len());
            for tensor in found {
                let expected = &expected[tensor["tensor"].as_str().unwrap()];
                assert_eq!(tensor["from"], expected["from"]);
                assert_eq!(tensor["steps"], expected["steps"]);
            }
        }
        let config = told("config.json");
        assert_eq!(config["kind"], "edited_config");
        assert_eq!(config["edits"], json!({"quantization_config": "set"}));
        assert_eq!(
            told("model.safetensors.index.json")["kind"],
            "made_by_the_plan"
        );
        assert!(files.json(View::ROOT).is_none());
    }
}

/// `count` tensors, none of which can be named together with another.
pub(crate) fn of_different_names(count: usize) -> Checkpoint {
    let tensors = (0..count).map(|i| bf16(&format!("{i:x}z"), &[1]));
    Checkpoint::single(tensors)
}

#[test]
fn names_that_are_all_different_are_cut_off_and_counted() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &of_different_names(3000));
    let plan = Arc::new(ViewRequest::new(&base).plan().unwrap());
    let entry = plan.shards[0].entry;
    let json = Files::new(plan).json(entry).unwrap();
    assert!(json.len() <= MAX_ATTRIBUTE_BYTES);
    let json: Value = serde_json::from_slice(&json).unwrap();
    let shown = json["groups"].as_array().unwrap().len() as u64;
    assert!(shown > 50);
    assert_eq!(shown + json["groups_left_out"].as_u64().unwrap(), 3000);
    assert_eq!(
        json["from"],
        base.join("model.safetensors").to_str().unwrap()
    );
}

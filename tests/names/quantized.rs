//! FP8 weights take their scales and their skip lists along, or are refused.

use ckptfs::error::Code;
use ckptfs::ops::NameLayout::{Released, Transformers};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback::{read_path, tensors};
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

const BLOCK: usize = 128;

/// The weight `name` and its scales.
fn fp8(name: &str, shape: [usize; 2], seed: u64) -> [TensorData; 2] {
    let scales = shape.map(|len| len.div_ceil(BLOCK));
    [
        tensor(name, Dtype::F8_E4M3, &shape, seed),
        tensor(&format!("{name}_scale_inv"), Dtype::F32, &scales, seed + 1),
    ]
}

fn fused(name: &str, parts: &[&TensorData], shape: &[usize]) -> TensorData {
    let bytes = parts.iter().flat_map(|part| part.bytes.iter().copied());
    TensorData::new(name, parts[0].dtype, shape, bytes.collect())
}

const MOE: &str = "model.layers.0.block_sparse_moe";

fn single(expert: usize, which: &str, shape: [usize; 2]) -> [TensorData; 2] {
    let name = format!("{MOE}.experts.{expert}.{which}.weight");
    fp8(
        &name,
        shape,
        (expert * 10 + which.as_bytes()[1] as usize) as u64,
    )
}

#[test]
fn scales_are_stacked_as_their_weights() {
    let (hidden, intermediate) = (130, BLOCK);
    let experts = [0, 1].map(|expert| {
        ["w1", "w3", "w2"].map(|which| {
            let shape = [intermediate, hidden];
            let shape = if which == "w2" {
                [hidden, intermediate]
            } else {
                shape
            };
            single(expert, which, shape)
        })
    });
    let released = experts
        .iter()
        .flatten()
        .flatten()
        .cloned()
        .collect::<Vec<_>>();
    let of = |which: usize, part: usize| experts.iter().map(move |expert| &expert[which][part]);
    let both = |part: usize| of(0, part).zip(of(1, part)).flat_map(|(a, b)| [a, b]);
    let name = "model.layers.0.mlp.experts";
    let transformers = [
        fused(
            &format!("{name}.gate_up_proj"),
            &both(0).collect::<Vec<_>>(),
            &[2, 2 * intermediate, hidden],
        ),
        fused(
            &format!("{name}.gate_up_proj_scale_inv"),
            &both(1).collect::<Vec<_>>(),
            &[2, 2, 2],
        ),
        fused(
            &format!("{name}.down_proj"),
            &of(2, 0).collect::<Vec<_>>(),
            &[2, hidden, intermediate],
        ),
        fused(
            &format!("{name}.down_proj_scale_inv"),
            &of(2, 1).collect::<Vec<_>>(),
            &[2, 2, 1],
        ),
    ];
    assert_layouts("mixtral", "", &released, &transformers);
}

#[test]
fn scales_are_called_as_their_weight_where_its_last_part_changes() {
    let name = "model.layers.0.block_sparse_moe.input_linear.weight";
    let weight = tensor(name, Dtype::F8_E4M3, &[2, 256, 128], 1);
    let scales = tensor(&format!("{name}_scale_inv"), Dtype::F32, &[2, 2, 1], 2);
    let renamed = |tensor: &TensorData| TensorData {
        name: tensor
            .name
            .replace("input_linear.weight", "experts.gate_up_proj"),
        ..tensor.clone()
    };
    let both = [weight, scales];
    assert_layouts("granitemoe", "", &both, &both.each_ref().map(renamed));
}

#[test]
fn blocks_that_would_be_cut_are_refused() {
    let rows = BLOCK + 2;
    let experts = ["w1", "w3"].map(|which| single(0, which, [rows, BLOCK]));
    let down = single(0, "w2", [BLOCK, rows]);
    let all = [&experts[0][..], &experts[1], &down].concat();
    let (code, text) = refusal(&checkpoint("mixtral", "", &all), Transformers);
    assert_eq!(code, Code::BadScales);
    assert_names(
        &text,
        &["gate_up_proj", "FP8", "130 rows", "128", "unquantized"],
    );

    let experts = ["gate_up_proj", "down_proj"].map(|projection| {
        let shape = if projection == "down_proj" {
            [1, 128, 256]
        } else {
            [1, 256, 256]
        };
        let name = format!("model.layers.0.mlp.experts.{projection}");
        let scales = shape.map(|len: usize| len.div_ceil(BLOCK));
        [
            tensor(&name, Dtype::F8_E4M3, &shape, 1),
            tensor(&format!("{name}_scale_inv"), Dtype::F32, &scales, 2),
        ]
    });
    let (code, text) = refusal(
        &checkpoint("qwen3_vl_moe", "", &experts.concat()),
        Transformers,
    );
    assert_eq!(code, Code::BadScales);
    assert_names(&text, &["gate_up_proj", "FP8", "another order"]);
}

#[test]
fn skip_lists_follow_to_the_new_names_and_back() {
    let skipped = |block: &str, experts: &[&str]| {
        let experts = experts
            .iter()
            .map(|module| format!("model.layers.0.{module}"));
        let gate = format!("model.layers.0.{block}.gate");
        let list: Vec<String> = std::iter::once(gate).chain(experts).collect();
        json!({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic",
            "modules_to_not_convert": list.clone(), "ignored_layers": list})
    };
    let experts = ["w1", "w2", "w3"].map(|which| {
        let shape = if which == "w2" { [4, 2] } else { [2, 4] };
        bf16(&format!("{MOE}.experts.0.{which}.weight"), &shape)
    });
    let gate = bf16(&format!("{MOE}.gate.weight"), &[1, 4]);
    let tensors_of = [&experts[..], &[gate]].concat();
    let released = skipped(
        "block_sparse_moe",
        &[
            "block_sparse_moe.experts.0.w1",
            "block_sparse_moe.experts.0.w2",
            "block_sparse_moe.experts.0.w3",
        ],
    );
    let config = format!(r#", "quantization_config": {released}"#);
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint("mixtral", &config, &tensors_of));
    let there = plan(&base, Transformers).unwrap();
    assert_eq!(tensors(&there).len(), 3);
    let lists = |plan| {
        let text = read_path(plan, "config.json").unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        ["modules_to_not_convert", "ignored_layers"].map(|key| {
            let list = config["quantization_config"][key].as_array().unwrap();
            let list = list.iter().map(|entry| entry.as_str().unwrap().to_owned());
            list.collect::<std::collections::BTreeSet<_>>()
        })
    };
    let expected = ["model.layers.0.mlp.experts", "model.layers.0.mlp.gate"];
    for list in lists(&there) {
        assert_eq!(list, expected.map(str::to_owned).into());
    }
    let written = crate::common::materialized(&workspace, "there", &request(&base, Transformers));
    let back = plan(&written, Released).unwrap();
    for list in lists(&back) {
        let modules = ["gate", "experts.0.w1", "experts.0.w2", "experts.0.w3"];
        assert_eq!(list, modules.map(|module| format!("{MOE}.{module}")).into());
    }
}

#[test]
fn what_belongs_to_an_expert_and_is_no_known_scale_is_refused() {
    for (model_type, name, layout) in [
        (
            "mixtral",
            format!("{MOE}.experts.0.w1.weight_packed"),
            Transformers,
        ),
        (
            "mixtral",
            format!("{MOE}.experts.0.w1.input_scale"),
            Transformers,
        ),
        (
            "mixtral",
            "model.layers.0.mlp.experts.gate_up_proj_blocks".to_owned(),
            Released,
        ),
        (
            "mixtral",
            "model.layers.0.mlp.experts.down_proj_bias".to_owned(),
            Released,
        ),
        (
            "deepseek_v4",
            "layers.0.ffn.experts.3.w2.scale".to_owned(),
            Transformers,
        ),
        (
            "kimi_linear",
            "model.layers.0.self_attn.q_conv1d.bias".to_owned(),
            Transformers,
        ),
    ] {
        let base: Checkpoint = checkpoint(model_type, "", &[bf16(&name, &[2, 2])]);
        let (code, text) = refusal(&base, layout);
        assert_eq!(code, Code::NamesLayout, "{name}");
        assert_names(&text, &[&name, "_scale_inv", "names"]);
    }
}

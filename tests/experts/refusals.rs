//! Experts that cannot change form, and what is said of them.

use ckptfs::ops::{Experts, ExpertsParams, Operations};
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::oracle::numbers::scale_name;
use crate::common::{Workspace, assert_names, message};
use crate::fixture::*;

const LAYER: &str = "model.layers.0.mlp";
const SIZES: Sizes = Sizes {
    experts: 11,
    intermediate: 4,
    hidden: 8,
};

fn fused() -> Vec<TensorData> {
    fused_layer(LAYER, Dtype::BF16, SIZES)
}

fn experts(name: &str) -> String {
    format!("{LAYER}.experts.{name}")
}

/// The message that refuses to change the form of `tensors`, with this config.json.
fn refusal_with(config: &str, tensors: Vec<TensorData>, form: Experts) -> String {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(tensors).config(config));
    message(plan(&base, form))
}

fn refusal(tensors: Vec<TensorData>, form: Experts) -> String {
    refusal_with(&config(SIZES.hidden), tensors, form)
}

/// `tensors` with the one called `name` replaced by `by`.
fn replaced(tensors: Vec<TensorData>, name: &str, by: Option<TensorData>) -> Vec<TensorData> {
    let count = tensors.len();
    let mut rest: Vec<TensorData> = tensors.into_iter().filter(|t| t.name != name).collect();
    assert_eq!(rest.len(), count - 1, "{name} was there");
    rest.extend(by);
    rest
}

#[test]
fn fused_experts_that_lie_otherwise_than_the_familys_are_refused() {
    for family in ["llama4", "gpt_oss", "aria", "openai_privacy_filter"] {
        for config in [
            format!(r#"{{"model_type": "{family}"}}"#),
            format!(r#"{{"model_type": "x", "text_config": {{"model_type": "{family}_text"}}}}"#),
        ] {
            let text = refusal_with(&config, fused(), Experts::Unfuse);
            let shapes = ["[11, 8, 8]", "[E, 2I, H]", "[E, H, 2I]"];
            let name = experts("gate_up_proj");
            assert_names(&text, &shapes);
            assert_names(&text, &["config.json", family, "cannot be told", &name]);
        }
    }
    // Transposed, of a family that is not known to be.
    let sizes = [[11, 8, 8], [11, 4, 8]];
    let names = ["gate_up_proj", "down_proj"].map(experts);
    let tensors = names.iter().zip(&sizes);
    let tensors: Vec<TensorData> = tensors.map(|(name, shape)| bf16(name, shape)).collect();
    for config in ["{}", r#"{"model_type": "qwen9"}"#] {
        let text = refusal_with(config, tensors.clone(), Experts::Unfuse);
        let words = [
            "transposed",
            "model_type",
            "cannot be told",
            "gpt_oss, llama4",
        ];
        assert_names(&text, &words);
        assert_names(&text, &[&names[0], "[11, 8, 8]"]);
    }
}

#[test]
fn numbered_weights_of_a_family_that_is_not_known_to_number_them_are_refused() {
    let numbered = |tensor: &TensorData| {
        let name = tensor.name.replace("gate_proj", "w1");
        let name = name.replace("up_proj", "w3").replace("down_proj", "w2");
        TensorData {
            name,
            ..tensor.clone()
        }
    };
    let tensors: Vec<TensorData> = unfused(LAYER, &fused()).iter().map(numbered).collect();
    for config in ["{}", r#"{"model_type": "other"}"#] {
        let text = refusal_with(config, tensors.clone(), Experts::Fuse);
        let name = experts("0.w1.weight");
        assert_names(
            &text,
            &[&name, "w1, w3, w2", "cannot be told", "mixtral", "rename"],
        );
    }
    let up = experts("3.w3.weight");
    let text = refusal_with(
        r#"{"model_type": "mixtral"}"#,
        replaced(tensors, &up, None),
        Experts::Fuse,
    );
    assert_names(&text, &[&up, "missing"]);
}

#[test]
fn experts_with_and_without_a_gate_in_one_layer_are_refused() {
    for other in ["gate_up_proj", "gate_proj"] {
        let names = ["up_proj", "down_proj", other].map(experts);
        let shapes = [[2, 4, 8], [2, 8, 4], [2, 4, 8]];
        let tensors = names.iter().zip(&shapes);
        let tensors = tensors.map(|(name, shape)| bf16(name, shape)).collect();
        let text = refusal(tensors, Experts::Unfuse);
        assert_names(&text, &[&names[0], &names[2], "no gate", "experts: unfuse"]);
    }
    let gates =
        |tensor: &TensorData| tensor.name.contains("experts.0.") || !tensor.name.contains("gate");
    let tensors = unfused(LAYER, &fused());
    let tensors = tensors.into_iter().filter(gates).collect();
    let text = refusal(tensors, Experts::Fuse);
    assert_names(&text, &[&experts("1.gate_proj.weight"), "missing"]);
    // A family that has one.
    let no_gates = |tensor: &TensorData| !tensor.name.contains("gate");
    let tensors = unfused(LAYER, &fused());
    let tensors = tensors.into_iter().filter(no_gates).collect();
    let text = refusal_with(r#"{"model_type": "llama4"}"#, tensors, Experts::Fuse);
    assert_names(&text, &[&experts("0.up_proj.weight"), "no gate"]);
}

#[test]
fn quantized_experts_of_families_that_store_them_transposed_are_refused() {
    let config = r#"{"model_type": "qwen3_vl_moe"}"#;
    let names = ["gate_up_proj", "down_proj"].map(experts);
    let weights = [[2, 128, 256], [2, 128, 128]];
    let scales = [[2, 1, 2], [2, 1, 1]];
    let fused: Vec<TensorData> = (0..2)
        .flat_map(|i| {
            let weight = tensor(&names[i], Dtype::F8_E4M3, &weights[i], 1);
            let scales = tensor(&scale_name(&names[i]), Dtype::F32, &scales[i], 1);
            [weight, scales]
        })
        .collect();
    let text = refusal_with(config, fused, Experts::Unfuse);
    assert_names(&text, &[&names[0], "FP8", "transposed", "unquantized"]);
    let text = refusal_with(config, unfused(LAYER, &fp8_layer(128)), Experts::Fuse);
    let name = experts("0.gate_proj.weight");
    assert_names(&text, &[&name, "FP8", "transposed"]);
}

#[test]
fn biases_that_do_not_fit_are_refused_by_name() {
    let config = r#"{"model_type": "gpt_oss"}"#;
    let [gate_up, down] = ["gate_up_proj", "down_proj"].map(experts);
    let weights = vec![bf16(&gate_up, &[2, 8, 10]), bf16(&down, &[2, 5, 8])];
    let with = |biases: Vec<TensorData>| [weights.clone(), biases].concat();
    let [gate_up, down] = [gate_up, down].map(|name| format!("{name}_bias"));
    let text = refusal_with(config, with(vec![bf16(&down, &[2, 8])]), Experts::Unfuse);
    assert_names(&text, &[&gate_up, "missing"]);
    let biases = vec![bf16(&gate_up, &[2, 10]), bf16(&down, &[2, 9])];
    let text = refusal_with(config, with(biases), Experts::Unfuse);
    assert_names(&text, &[&down, "[2, 9]", "[2, 8]"]);

    let single = unfused(LAYER, &fused());
    let module = |tensor: &TensorData| tensor.name.strip_suffix(".weight").unwrap().to_owned();
    let bias = |tensor: &TensorData| bf16(&format!("{}.bias", module(tensor)), &[tensor.shape[0]]);
    let biases: Vec<TensorData> = single.iter().map(bias).collect();
    let all = [single, biases].concat();
    let missing = experts("4.up_proj.bias");
    let text = refusal_with(config, replaced(all.clone(), &missing, None), Experts::Fuse);
    assert_names(&text, &[&missing, "missing"]);
    for by in [bf16(&missing, &[5]), tensor(&missing, Dtype::F16, &[4], 1)] {
        let found = format!("{:?} {:?}", by.dtype, by.shape);
        let text = refusal_with(
            config,
            replaced(all.clone(), &missing, Some(by)),
            Experts::Fuse,
        );
        assert_names(&text, &[&missing, &found, "BF16 [4]"]);
    }
}

#[test]
fn a_family_whose_name_only_begins_like_one_of_them_is_not_refused() {
    let workspace = Workspace::new();
    let base = Checkpoint::single(fused()).config(r#"{"model_type": "llama40"}"#);
    assert!(plan(&workspace.write("base", &base), Experts::Unfuse).is_ok());
}

#[test]
fn a_config_that_cannot_be_read_is_no_reason_to_guess_the_family() {
    let text = refusal_with("[1]", fused(), Experts::Unfuse);
    assert_names(&text, &["config.json", "not a JSON object"]);
}

#[test]
fn without_a_config_the_shapes_alone_decide() {
    let workspace = Workspace::new();
    let base = Checkpoint::single(fused()).without_config();
    assert!(plan(&workspace.write("base", &base), Experts::Unfuse).is_ok());
}

#[test]
fn fused_shapes_that_do_not_belong_together_are_refused() {
    let (gate_up, down) = (experts("gate_up_proj"), experts("down_proj"));
    let shapes: [[&[usize]; 2]; 7] = [
        // Odd rows, other sizes, other numbers of experts.
        [&[2, 7, 8], &[2, 8, 3]],
        [&[2, 8, 8], &[2, 8, 3]],
        [&[2, 8, 8], &[2, 9, 4]],
        [&[2, 8, 8], &[3, 8, 4]],
        // Other numbers of dimensions.
        [&[8, 8], &[2, 8, 4]],
        [&[2, 8, 8], &[8, 4]],
        // Empty.
        [&[0, 8, 8], &[0, 8, 4]],
    ];
    for [gate_up_shape, down_shape] in shapes {
        let tensors = vec![bf16(&gate_up, gate_up_shape), bf16(&down, down_shape)];
        let text = refusal_with("{}", tensors, Experts::Unfuse);
        let found = [gate_up_shape, down_shape].map(|shape| format!("{shape:?}"));
        assert_names(
            &text,
            &[
                "model.safetensors",
                &gate_up,
                &down,
                &found[0],
                &found[1],
                "[E, 2I, H]",
                "[E, H, I]",
            ],
        );
    }
}

#[test]
fn experts_of_another_hidden_size_than_the_configs_are_refused() {
    for config in [
        config(16),
        r#"{"text_config": {"hidden_size": 16}}"#.to_owned(),
    ] {
        let text = refusal_with(&config, fused(), Experts::Unfuse);
        let name = experts("gate_up_proj");
        assert_names(
            &text,
            &[&name, "[11, 8, 8]", "hidden size would be 8", "is 16"],
        );
        let text = refusal_with(&config, unfused(LAYER, &fused()), Experts::Fuse);
        let name = experts("0.gate_proj.weight");
        assert_names(&text, &[&name, "[4, 8]", "hidden size would be 8", "is 16"]);
    }
}

#[test]
fn half_of_a_fused_layer_is_refused() {
    for missing in ["gate_up_proj", "down_proj"] {
        let missing = experts(missing);
        let text = refusal(replaced(fused(), &missing, None), Experts::Unfuse);
        assert_names(&text, &[&missing, "missing", "use patch"]);
    }
}

#[test]
fn what_belongs_to_fused_experts_and_is_no_weight_is_refused_by_name() {
    for name in [
        "gate_up_proj_bias",
        "down_proj_bias",
        "gate_up_proj_blocks",
        "down_proj_scale",
    ] {
        let name = experts(name);
        let tensors = [fused(), vec![bf16(&name, &[11, 8])]].concat();
        let text = refusal(tensors, Experts::Unfuse);
        assert_names(&text, &[&name, "neither a weight", "experts: unfuse"]);
        // Even if there is nothing else.
        let text = refusal(vec![bf16(&name, &[11, 8])], Experts::Unfuse);
        assert_names(&text, &[&name]);
    }
}

#[test]
fn what_belongs_to_an_expert_and_is_no_weight_is_refused_by_name() {
    for name in [
        "3.gate_proj.bias",
        "3.up_proj.input_scale",
        "3.w1.weight",
        "03.up_proj.weight",
        "3.norm",
    ] {
        let name = experts(name);
        let tensors = [unfused(LAYER, &fused()), vec![bf16(&name, &[4, 8])]].concat();
        let text = refusal(tensors, Experts::Fuse);
        assert_names(&text, &[&name, "belongs to an expert", "experts: fuse"]);
    }
}

#[test]
fn both_forms_of_one_tensor_are_refused() {
    let unfused = unfused(LAYER, &fused());
    let (gate, gate_up) = (experts("0.gate_proj.weight"), experts("gate_up_proj"));
    let both = [fused(), unfused].concat();
    let text = refusal(both.clone(), Experts::Unfuse);
    assert_names(&text, &[&gate, "second time", "one form only"]);
    let text = refusal(both, Experts::Fuse);
    assert_names(&text, &[&gate_up, "second time", "one form only"]);
}

#[test]
fn a_gap_among_experts_is_refused() {
    let layer = "mtp.layers.0.mlp";
    let unfused = unfused(layer, &fused_layer(layer, Dtype::BF16, SIZES));
    for missing in ["0.gate_proj", "7.up_proj", "10.down_proj"] {
        let missing = format!("{layer}.experts.{missing}.weight");
        let text = refusal(replaced(unfused.clone(), &missing, None), Experts::Fuse);
        assert_names(&text, &[&missing, "missing", "without gaps", "use patch"]);
    }
    let without = |expert: &str| -> Vec<TensorData> {
        let prefix = format!("{layer}.experts.{expert}.");
        let others = unfused.iter().filter(|t| !t.name.starts_with(&prefix));
        others.cloned().collect()
    };
    for expert in ["0", "5"] {
        let text = refusal(without(expert), Experts::Fuse);
        let missing = format!("{layer}.experts.{expert}.gate_proj.weight");
        assert_names(&text, &[&missing, "missing"]);
    }
    // The last is missed only by those who know how many there are.
    for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
        let config = format!(r#"{{"{key}": 11}}"#);
        let text = refusal_with(&config, without("10"), Experts::Fuse);
        assert_names(&text, &[layer, "10 experts", "says 11", "config.json"]);
    }
}

#[test]
fn a_name_with_a_huge_number_is_a_gap_like_any_other() {
    let huge = experts("18446744073709551615.up_proj.weight");
    let tensors = [unfused(LAYER, &fused()), vec![bf16(&huge, &[4, 8])]].concat();
    let text = refusal(tensors, Experts::Fuse);
    assert_names(&text, &[&experts("11.gate_proj.weight"), "missing"]);
}

#[test]
fn experts_that_are_not_alike_are_refused() {
    let (up, down) = (experts("6.up_proj.weight"), experts("10.down_proj.weight"));
    for (name, by, found) in [
        (&up, bf16(&up, &[5, 8]), "BF16 [5, 8]"),
        (&up, tensor(&up, Dtype::F16, &[4, 8], 1), "F16 [4, 8]"),
        (&down, bf16(&down, &[8, 5]), "BF16 [8, 5]"),
    ] {
        let tensors = replaced(unfused(LAYER, &fused()), name, Some(by));
        let text = refusal(tensors, Experts::Fuse);
        let first = if name == &up {
            "0.gate_proj.weight"
        } else {
            "0.down_proj.weight"
        };
        assert_names(&text, &[name, found, &experts(first), "alike"]);
    }
    // Alike, but gate and down do not fit each other.
    let shapes = |name: &str| {
        if name.contains("down") {
            [8, 5]
        } else {
            [4, 8]
        }
    };
    let tensors = unfused(LAYER, &fused())
        .iter()
        .map(|t| bf16(&t.name, &shapes(&t.name)))
        .collect();
    let text = refusal(tensors, Experts::Fuse);
    assert_names(
        &text,
        &[&experts("0.gate_proj.weight"), "[4, 8]", "[8, 5]", "[I, H]"],
    );
}

fn fp8_layer(intermediate: usize) -> Vec<TensorData> {
    let sizes = Sizes {
        experts: 2,
        intermediate,
        hidden: 8,
    };
    fused_fp8_layer(LAYER, Dtype::F32, sizes)
}

#[test]
fn fp8_scales_that_gate_and_up_would_share_are_refused() {
    let text = refusal(fp8_layer(192), Experts::Unfuse);
    assert_names(
        &text,
        &[&experts("gate_up_proj"), "192 rows", "multiple of 128"],
    );

    let unfused = unfused(
        LAYER,
        &fused_layer(
            LAYER,
            Dtype::F8_E4M3,
            Sizes {
                experts: 2,
                intermediate: 192,
                hidden: 8,
            },
        ),
    );
    let with_scales = unfused.into_iter().flat_map(|weight| {
        let shape = [weight.shape[0].div_ceil(128), weight.shape[1].div_ceil(128)];
        let scales = tensor(&scale_name(&weight.name), Dtype::F32, &shape, 1);
        [weight, scales]
    });
    let text = refusal(with_scales.collect(), Experts::Fuse);
    assert_names(
        &text,
        &[
            &experts("0.gate_proj.weight"),
            "192 rows",
            "multiple of 128",
        ],
    );
}

#[test]
fn scales_that_are_not_those_of_128_by_128_blocks_are_refused() {
    let scales = experts("gate_up_proj_scale_inv");
    let other = tensor(&scales, Dtype::F32, &[2, 4, 1], 1);
    let text = refusal(
        replaced(fp8_layer(128), &scales, Some(other)),
        Experts::Unfuse,
    );
    assert_names(&text, &[&scales, "[2, 4, 1]", "[2, 2, 1]", "128"]);

    let scales = experts("1.down_proj.weight_scale_inv");
    let unquantized = tensor(&scales, Dtype::F32, &[1, 1], 1);
    let tensors = [unfused(LAYER, &fused()), vec![unquantized]].concat();
    let text = refusal(tensors, Experts::Fuse);
    assert_names(&text, &[&scales, "BF16", "FP8"]);
}

#[test]
fn experts_of_which_only_some_have_scales_are_refused() {
    let unfused = unfused(LAYER, &fp8_layer(128));
    let missing = experts("1.up_proj.weight_scale_inv");
    let text = refusal(replaced(unfused, &missing, None), Experts::Fuse);
    assert_names(
        &text,
        &[
            &experts("1.up_proj.weight"),
            "without scales",
            "with scales",
            "alike",
        ],
    );
}

#[test]
fn scales_without_their_weight_are_refused() {
    let missing = experts("gate_up_proj");
    let text = refusal(replaced(fp8_layer(128), &missing, None), Experts::Unfuse);
    assert_names(&text, &[&missing, "missing"]);
    let missing = experts("1.up_proj.weight");
    let tensors = replaced(unfused(LAYER, &fp8_layer(128)), &missing, None);
    assert_names(&refusal(tensors, Experts::Fuse), &[&missing, "missing"]);
}

#[test]
fn the_plan_warns_if_a_skip_list_names_experts_that_become_part_of_fused_tensors() {
    let skipped = |names: &str| {
        format!(r#"{{"quantization_config": {{"modules_to_not_convert": [{names}]}}}}"#)
    };
    let warnings = |config: &str| {
        let workspace = Workspace::new();
        let tensors = unfused(LAYER, &fused());
        let base = workspace.write("base", &Checkpoint::single(tensors).config(config));
        let request = ViewRequest {
            operations: Operations {
                experts: ExpertsParams::all(Experts::Fuse),
                ..Operations::default()
            },
            ..ViewRequest::new(base)
        };
        request.plan().unwrap().report.warnings
    };
    let stale = experts("3.up_proj");
    let found = warnings(&skipped(&format!(r#""lm_head", "{stale}""#)));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_names(&found[0], &[&stale, "modules_to_not_convert"]);
    assert!(warnings(&skipped(r#""lm_head""#)).is_empty());
}

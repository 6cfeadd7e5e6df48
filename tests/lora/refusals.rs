//! Adapters that cannot be merged: every error says what was found and why.

use std::fs;

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::{Workspace, assert_names, message};
use crate::fixture::{Adapter, numbers, plan, weight};

/// The error of an adapter on a base with a layer `model.x` `[6, 4]` and its bias.
fn refusal(adapter: &Adapter) -> String {
    refusal_on(&Checkpoint::single([weight("model.x", &[6, 4])]), adapter)
}

fn refusal_on(base: &Checkpoint, adapter: &Adapter) -> String {
    let workspace = Workspace::new();
    let base = workspace.write("base", base);
    message(plan(&base, &adapter.write(&workspace, "lora")))
}

fn plain() -> Adapter {
    Adapter::new(2, 2.0).linear("model.x", [6, 4], 2)
}

#[test]
fn settings_that_no_merge_is_equal_to() {
    let cases: [(&str, Value); 15] = [
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("OLoRA")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("lora_ga")),
        ("layer_replication", json!([[0, 4], [2, 5]])),
        ("alora_invocation_tokens", json!([1, 2])),
        ("arrow_config", json!({"top_k": 2})),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({"nblocks": 2})),
        ("monteclora_config", json!({"num_samples": 8})),
        ("kasa_config", json!({"beta": 0.1})),
        ("megatron_config", json!({"x": 1})),
    ];
    for (key, value) in cases {
        let text = refusal(&plain().set(key, value));
        assert_names(&text, &["adapter_config.json", key]);
    }
    for (key, value) in [
        ("init_lora_weights", json!(true)),
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("eva")),
        ("init_lora_weights", json!("orthogonal")),
        ("megatron_core", json!("megatron.core")),
        ("loftq_config", json!({})),
        ("layer_replication", json!(null)),
        ("velora_config", json!({"x": 1})),
    ] {
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single([weight("model.x", &[6, 4])]));
        let adapter = plain().set(key, value).write(&workspace, "lora");
        plan(&base, &adapter).unwrap();
    }
}

#[test]
fn settings_that_are_no_settings() {
    let no_rank = plain().set("r", 0);
    assert_names(&refusal(&no_rank), &["r is not a positive number"]);
    let no_alpha = plain().set("lora_alpha", "2");
    assert_names(&refusal(&no_alpha), &["lora_alpha is \"2\""]);
    let pattern = plain().set("rank_pattern", json!({"a(": 2}));
    assert_names(&refusal(&pattern), &["rank_pattern", "a("]);
    let pattern = plain().set("rank_pattern", json!({"a)|(b": 2}));
    assert_names(&refusal(&pattern), &["rank_pattern", "a)|(b"]);
    let pattern = plain().set("alpha_pattern", json!({"a": "b"}));
    assert_names(&refusal(&pattern), &["alpha_pattern", "no positive number"]);
    let both = plain().set("use_dora", true).set("lora_bias", true);
    assert_names(&refusal(&both), &["use_dora", "lora_bias"]);
}

#[test]
fn files_that_are_missing_or_of_another_kind() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([weight("model.x", &[6, 4])]));
    let nothing = workspace.path().join("nothing");
    assert_names(
        &message(plan(&base, &nothing)),
        &["nothing", "there is no such directory"],
    );
    // Safetensors with the name of a pickle.
    let pickled = plain().write(&workspace, "pickled");
    fs::rename(
        pickled.join("adapter_model.safetensors"),
        pickled.join("adapter_model.bin"),
    )
    .unwrap();
    assert_names(
        &message(plan(&base, &pickled)),
        &["adapter_model.bin", "not a file of torch.save"],
    );
    let empty = plain().write(&workspace, "empty");
    fs::remove_file(empty.join("adapter_model.safetensors")).unwrap();
    assert_names(
        &message(plan(&base, &empty)),
        &["adapter_model.safetensors"],
    );
    fs::write(pickled.join("adapter_config.json"), "[1]").unwrap();
    assert_names(&message(plan(&base, &pickled)), &["not a JSON object"]);
}

#[test]
fn tensors_that_match_nothing_are_named_with_what_is_close() {
    let adapter = Adapter::new(2, 2.0).linear("other.x", [6, 4], 2);
    let text = refusal(&adapter);
    assert_names(
        &text,
        &[
            "other.x.lora_A.weight",
            "other.x.weight",
            "closest",
            "model.x.weight",
        ],
    );
    let replaced = plain().tensor(numbers("base_model.model.head.weight", Dtype::BF16, &[2]));
    assert_names(&refusal(&replaced), &["head.weight", "does not have"]);
    let unknown = plain().tensor(numbers("model.x.lora_diag", Dtype::F32, &[2]));
    assert_names(&refusal(&unknown), &["model.x.lora_diag", "does not know"]);
    let twice = plain().tensor(numbers("model.x.lora_A.weight", Dtype::F32, &[2, 4]));
    assert_names(&refusal(&twice), &["model.x.lora_A.weight", "twice"]);
    let bias = plain().tensor(numbers("model.x.lora_B.bias", Dtype::F32, &[6]));
    assert_names(&refusal(&bias), &["model.x.lora_B.bias", "model.x.bias"]);
    let wrapped = Adapter::new(2, 2.0).linear("model.experts.base_layer", [6, 4], 2);
    assert_names(&refusal(&wrapped), &["target_parameters", "model.experts"]);
}

#[test]
fn factors_that_do_not_fit_the_base_or_each_other() {
    let wide = Adapter::new(2, 2.0).linear("model.x", [6, 5], 2);
    assert_names(
        &refusal(&wide),
        &["model.x.lora_A.weight", "[2, 5]", "[6, 4]"],
    );
    let tall = Adapter::new(2, 2.0).linear("model.x", [7, 4], 2);
    assert_names(
        &refusal(&tall),
        &["model.x.lora_B.weight", "[7, 2]", "[6, 4]"],
    );
    let rank = Adapter::new(3, 2.0).linear("model.x", [6, 4], 2);
    assert_names(&refusal(&rank), &["rank is 2", "says 3"]);
    let number =
        |role, shape: &[usize]| numbers(&format!("model.x.lora_{role}.weight"), Dtype::F32, shape);
    let ranks = Adapter::new(2, 2.0)
        .tensor(number("A", &[2, 4]))
        .tensor(number("B", &[6, 3]));
    assert_names(&refusal(&ranks), &["[2, 4]", "[6, 3]", "rank"]);
    let alone = Adapter::new(2, 2.0).tensor(number("A", &[2, 4]));
    assert_names(&refusal(&alone), &["model.x.lora_A.weight", "no lora_B"]);
    let shape = Adapter::new(2, 2.0).tensor(numbers("model.x.weight", Dtype::BF16, &[5, 4]));
    assert_names(&refusal(&shape), &["[5, 4]", "[6, 4]"]);
    let bytes = tensor("model.x.lora_A.weight", Dtype::F8_E4M3, &[2, 4], 1);
    let bytes = Adapter::new(2, 2.0)
        .tensor(bytes)
        .tensor(number("B", &[6, 2]));
    assert_names(
        &refusal(&bytes),
        &["model.x.lora_A.weight", "F8_E4M3", "BF16, F16 or F32"],
    );
}

#[test]
fn magnitudes_where_there_should_be_none_or_others() {
    let magnitude = |count: usize| numbers("model.x.lora_magnitude_vector", Dtype::F32, &[count]);
    let undeclared = plain().tensor(magnitude(6));
    assert_names(
        &refusal(&undeclared),
        &["lora_magnitude_vector", "use_dora"],
    );
    let lacking = plain().set("use_dora", true);
    assert_names(
        &refusal(&lacking),
        &["use_dora", "no lora_magnitude_vector"],
    );
    let short = plain().set("use_dora", true).tensor(magnitude(4));
    assert_names(
        &refusal(&short),
        &["lora_magnitude_vector", "[4]", "[6, 4]"],
    );
}

#[test]
fn square_layers_of_unknown_orientation() {
    let square = Checkpoint::single([weight("h.c_proj", &[6, 6]), weight("h.dense", &[6, 6])]);
    for (module, declared) in [("h.c_proj", false), ("h.dense", true)] {
        let adapter =
            Adapter::new(2, 2.0)
                .set("fan_in_fan_out", declared)
                .linear(module, [6, 6], 2);
        let text = refusal_on(&square, &adapter);
        assert_names(&text, &[module, "square", "fan_in_fan_out"]);
    }
}

#[test]
fn bases_that_are_quantized() {
    let codes = |dtype| tensor("model.x.weight", dtype, &[6, 4], 1);
    let scales = numbers("model.x.weight_scale_inv", Dtype::F32, &[1, 1]);
    let fp8 = Checkpoint::single([codes(Dtype::F8_E4M3), scales]);
    let text = refusal_on(&fp8, &plain());
    assert_names(&text, &["model.x.weight", "F8_E4M3", "dtype: bf16"]);
    let packed: [TensorData; 1] = [codes(Dtype::U8)];
    let text = refusal_on(&Checkpoint::single(packed), &plain());
    assert_names(&text, &["model.x.weight", "U8", "not quantized"]);
}

#[test]
fn rows_and_factors_that_would_not_fit_in_memory() {
    let columns = (1 << 20) + 1;
    let base = Checkpoint::single([weight("model.x", &[1, columns])]);
    let wide = Adapter::new(1, 1.0).linear("model.x", [1, columns], 1);
    assert_names(&refusal_on(&base, &wide), &["1048577", "1048576"]);
    let columns = (1 << 16) + 1;
    let base = Checkpoint::single([weight("c_fc", &[2, columns])]);
    let summed = Adapter::new(1, 1.0)
        .set("use_dora", true)
        .linear("c_fc", [columns, 2], 1)
        .tensor(numbers(
            "c_fc.lora_magnitude_vector",
            Dtype::F32,
            &[columns],
        ));
    assert_names(&refusal_on(&base, &summed), &["65537", "65536"]);
}

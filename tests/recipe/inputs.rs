//! Models of a merge that are not what is stored: with an adapter, or in block FP8.

use std::path::PathBuf;

use ckptfs::error::Code;
use ckptfs::ops::{
    DtypeParams, ExpertOrder, LoraParams, LoraRequest, Operations, Precision, QuantizeParams,
};
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;

use crate::common::adapter::{Adapter, numbers};
use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::read_all;
use crate::common::{Workspace, materialized};
use crate::fixture::{LAYERS, model, names, plan, workspace};

/// Asserts that two recipes show the same files.
fn assert_same(workspace: &Workspace, recipe: &str, other: &str) {
    let read = |recipe: &str| {
        let plan = plan(workspace, recipe).unwrap_or_else(|e| panic!("{e}\n{recipe}"));
        read_all(&plan)
    };
    let (found, expected) = (read(recipe), read(other));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (path, bytes) in &found {
        assert!(*bytes == expected[path], "{} of {recipe}", path.display());
    }
}

/// Recipes of `x` with `y`, by methods of each kind: without facts, of facts, of ranks.
fn recipes(x: &str, y: &str) -> [String; 4] {
    let two = format!("models: [{{model: {x}}}, {{model: {y}}}]\n");
    [
        format!("merge_method: linear\n{two}parameters: {{weight: [0.25, 0.5]}}\n"),
        format!("merge_method: slerp\n{two}base_model: {y}\nparameters: {{t: 0.3}}\n"),
        format!(
            "merge_method: task_arithmetic\n{two}base_model: {y}\nparameters: {{weight: 0.7}}\ndtype: bfloat16\n"
        ),
        format!(
            "merge_method: ties\n{two}base_model: {y}\nparameters: {{weight: 1, density: 0.4}}\ndtype: bfloat16\n"
        ),
    ]
}

fn adapted(base: PathBuf, adapter: PathBuf) -> ViewRequest {
    let lora = LoraRequest {
        adapter: adapter.into(),
        weight: 1.0,
    };
    ViewRequest {
        operations: Operations {
            lora: LoraParams {
                adapters: vec![lora],
                ..LoraParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
}

#[test]
fn a_model_with_its_adapter_is_the_model_that_it_was_merged_into() {
    let workspace = workspace();
    let adapter = Adapter::new(2, 3.0)
        .linear("model.layers.1.self_attn.q_proj", [6, 4], 2)
        .linear("model.layers.3.mlp.down_proj", [6, 4], 2)
        .write(&workspace, "l");
    let at = |name: &str| workspace.path().join(name);
    materialized(&workspace, "al", &adapted(at("a"), adapter));
    let plain = plan(&workspace, &recipes("a", "b")[0]).unwrap();
    let with = plan(&workspace, &recipes("a+l", "b")[0]).unwrap();
    assert_ne!(read_all(&plain), read_all(&with), "the adapter counts");
    for other in ["b", "a"] {
        let pairs = recipes("a+l", other).into_iter();
        for (recipe, expected) in pairs.zip(recipes("al", other)) {
            assert_same(&workspace, &recipe, &expected);
        }
    }
    let slices = |model: &str| {
        format!(
            "merge_method: passthrough\nslices:\n- sources: [{{model: b, layer_range: [0, 2]}}]\n- sources: [{{model: {model}, layer_range: [1, 4]}}]\n"
        )
    };
    assert_same(&workspace, &slices("a+l"), &slices("al"));
    let in_parts = slices("{model: {path: a}, lora: {path: l}}");
    assert_same(&workspace, &in_parts, &slices("al"));
}

/// Models `x` and `y` with dimensions that blocks do not divide, `x8` and `y8` of them in FP8.
fn with_fp8() -> Workspace {
    let workspace = Workspace::new();
    for seed in ["x", "y"] {
        let tensor = |name: &String| {
            let shape: &[usize] = if name.contains("norm") {
                &[150]
            } else {
                &[200, 150]
            };
            TensorData {
                name: name.clone(),
                ..numbers(&format!("{seed} {name}"), Dtype::BF16, shape)
            }
        };
        let tensors = names(LAYERS).iter().map(tensor).collect();
        let base = workspace.write(seed, &model(tensors));
        let fp8 = QuantizeParams::by_rules();
        let request = ViewRequest {
            operations: Operations {
                quantize: fp8,
                ..Operations::default()
            },
            ..ViewRequest::new(base)
        };
        materialized(&workspace, &format!("{seed}8"), &request);
    }
    workspace
}

/// Writes `name` of `workspace` in one dtype.
fn cast(workspace: &Workspace, name: &str, to: Precision, out: &str) -> PathBuf {
    let request = ViewRequest {
        operations: Operations {
            dtype: DtypeParams { to: Some(to) },
            ..Operations::default()
        },
        ..ViewRequest::new(workspace.path().join(name))
    };
    materialized(workspace, out, &request)
}

#[test]
fn a_model_in_fp8_is_the_model_that_its_codes_and_scales_stand_for() {
    let workspace = with_fp8();
    let mut sixteen = Vec::new();
    for name in ["x", "y"] {
        let eight = format!("{name}8");
        cast(&workspace, &eight, Precision::F32, &format!("{name}32"));
        sixteen.push(cast(
            &workspace,
            &eight,
            Precision::Bf16,
            &format!("{name}16"),
        ));
    }
    for ([x, y], [x16, y16]) in [
        (["x8", "y8"], ["x16", "y16"]),
        (["x8", "y"], ["x16", "y"]),
        (["x", "y8"], ["x", "y16"]),
    ] {
        let pairs = recipes(x, y).into_iter();
        for (recipe, expected) in pairs.zip(recipes(x16, y16)) {
            assert_same(&workspace, &recipe, &expected);
        }
    }
    let in_f32 = |x: &str, y: &str| {
        let [linear, ..] = recipes(x, y);
        format!("{linear}dtype: float32\nout_dtype: float16\n")
    };
    assert_same(&workspace, &in_f32("x8", "y8"), &in_f32("x32", "y32"));

    let adapter = Adapter::new(2, 3.0)
        .linear("model.layers.1.self_attn.q_proj", [200, 150], 2)
        .write(&workspace, "l");
    materialized(&workspace, "x16l", &adapted(sixteen[0].clone(), adapter));
    let [linear, ..] = recipes("x8+l", "y");
    let [expected, ..] = recipes("x16l", "y");
    assert_same(&workspace, &linear, &expected);
}

#[test]
fn the_order_of_experts_is_that_of_adapters_of_models_too() {
    let workspace = workspace();
    let module = "model.layers.0.mlp.experts";
    let experts = |seed: &str| {
        let mut down = numbers(seed, Dtype::BF16, &[3, 8, 6]);
        down.name = format!("{module}.down_proj");
        Checkpoint::single([down])
    };
    workspace.write("e", &experts("e"));
    workspace.write("f", &experts("f"));
    let factor =
        |role, shape: &[usize]| numbers(&format!("{module}.lora_{role}.weight"), Dtype::F32, shape);
    let adapter = Adapter::new(2, 3.0).set("target_parameters", vec!["experts.down_proj"]);
    let adapter = adapter.tensor(factor("A", &[6, 6]));
    let adapter = adapter.tensor(factor("B", &[8, 6])).write(&workspace, "l");
    let mut ordered = adapted(workspace.path().join("e"), adapter);
    ordered.operations.lora.experts = Some(ExpertOrder::ExpertMajor);
    materialized(&workspace, "el", &ordered);

    let [adapted, ..] = recipes("e+l", "f");
    let said = format!("{adapted}view: {{lora_experts: expert-major}}\n");
    let said = plan(&workspace, &said).unwrap();
    assert!(
        said.report.warnings.is_empty(),
        "{:?}",
        said.report.warnings
    );
    let expected = plan(&workspace, &recipes("el", "f")[0]).unwrap();
    assert_eq!(read_all(&said), read_all(&expected));
    let silent = plan(&workspace, &adapted).unwrap();
    assert_ne!(read_all(&silent), read_all(&expected));
    let codes = silent.report.warnings.iter().map(|warning| warning.code());
    assert!(codes.eq([Code::ExpertOrder]));
}

//! What the plan of a patched view says where it is probably not the view that was meant.

use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::{Workspace, assert_names, plan_patch};
use ckptfs::error::Warning;

fn layer(i: usize) -> TensorData {
    bf16(
        &format!("model.layers.{i}.self_attn.o_proj.weight"),
        &[8, 16],
    )
}

const CONFIG: &str =
    r#"{"architectures": ["AForCausalLM"], "model_type": "a", "num_hidden_layers": 2}"#;

/// Warnings of the plan of a two-layer base that lacks its norm, patched with `extra`.
fn warnings(extra: Checkpoint) -> Vec<Warning> {
    let workspace = Workspace::new();
    let base = Checkpoint::single([layer(0), layer(1)]).config(CONFIG);
    let base = workspace.write("base", &base);
    let extra = workspace.write("extra", &extra);
    plan_patch(&base, &[&extra]).unwrap().report.warnings
}

#[test]
fn a_patch_that_fits_is_planned_without_a_warning() {
    let norm = bf16("model.norm.weight", &[16]);
    let in_range = bf16("model.layers.1.input_layernorm.weight", &[16]);
    let extra = Checkpoint::single([layer(0), norm, in_range]).config(CONFIG);
    assert_eq!(warnings(extra), [""; 0]);
}

#[test]
fn an_extra_that_is_a_full_quantization_of_the_base_is_pointed_to_reference() {
    let quantized = (0..2).flat_map(|i| {
        let name = layer(i).name;
        let scale = tensor(&format!("{name}_scale_inv"), Dtype::F32, &[1, 1], 2);
        [tensor(&name, Dtype::F8_E4M3, &[8, 16], 1), scale]
    });
    let warnings = warnings(Checkpoint::single(quantized).config(CONFIG));
    assert_names(
        &warnings.join("\n"),
        &["use quantize.references instead of patch", "extra"],
    );
}

#[test]
fn an_extra_that_adds_nothing_is_a_warning() {
    let warnings = warnings(Checkpoint::single([layer(0)]).config(CONFIG));
    assert_eq!(warnings.len(), 1);
    assert_names(&warnings[0], &["extra"]);
}

#[test]
fn an_added_tensor_of_a_dtype_that_the_base_does_not_have_is_a_warning() {
    let odd = tensor(
        "model.layers.1.mlp.down_proj.weight",
        Dtype::F32,
        &[4, 4],
        1,
    );
    let warnings = warnings(Checkpoint::single([odd]).config(CONFIG));
    assert_names(
        &warnings.join("\n"),
        &["F32", "model.layers.1.mlp.down_proj.weight"],
    );
}

#[test]
fn an_added_tensor_of_a_layer_that_the_base_does_not_have_is_a_warning() {
    let warnings = warnings(Checkpoint::single([layer(7)]).config(CONFIG));
    assert_names(&warnings.join("\n"), &["model.layers.7"]);
}

#[test]
fn base_and_extra_of_different_architectures_are_a_warning() {
    let other = r#"{"architectures": ["BForCausalLM"], "model_type": "b", "num_hidden_layers": 2}"#;
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])]).config(other);
    let warnings = warnings(extra);
    assert_names(&warnings.join("\n"), &["AForCausalLM", "BForCausalLM"]);
}

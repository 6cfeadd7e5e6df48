//! With other operators: a view of a view, materialized between the steps, has the same bytes.

use std::path::Path;

use ckptfs::ops::{CastRule, Operations, Pad, Precision, QuantizeParams};
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::readback::tensors;
use crate::common::{Workspace, materialized};
use crate::fixture::{EMBEDDING, HEAD, config};

type Ask = fn(&mut Operations);

fn base() -> Checkpoint {
    Checkpoint::single([
        tensor(EMBEDDING, Dtype::F32, &[140, 128], 3),
        bf16("model.layers.0.mlp.up_proj.weight", &[128, 128]),
    ])
    .config(r#"{"model_type": "llama", "tie_word_embeddings": true, "vocab_size": 140}"#)
}

/// Asserts that `steps` together are `steps` one after another.
fn assert_steps(steps: &[Ask]) {
    let workspace = Workspace::new();
    let mut directory = workspace.write("base", &base());
    let together =
        ViewRequest::new(&*directory).with(|asked| steps.iter().for_each(|step| step(asked)));
    let together = together.plan().unwrap();
    for (i, step) in steps.iter().enumerate() {
        let request = ViewRequest::new(Path::new(&directory)).with(step);
        directory = materialized(&workspace, &format!("step{i}"), &request);
    }
    let apart = ViewRequest::new(&*directory).plan().unwrap();
    assert!(tensors(&together) == tensors(&apart));
    assert_eq!(config(&together), config(&apart));
}

const UNTIE: Ask = |asked| asked.tying.untie = true;
const PAD: Ask = |asked| {
    asked.vocabulary.multiple = Some(64);
    asked.vocabulary.pad = Some(Pad::Mean);
};
const CUT: Ask = |asked| asked.vocabulary.size = Some(100);
const BF16: Ask = |asked| asked.dtype.to = Some(Precision::Bf16);
const CAST_HEAD: Ask = |asked| {
    asked.cast.rules.push(CastRule {
        names: "lm_head.*".to_owned(),
        to: Precision::F16,
    });
};
const FP8: Ask = |asked| asked.quantize = QuantizeParams::by_rules();
const RENAME: Ask = |asked| {
    let rule = r"^model\.embed_tokens=model.language_model.embed_tokens";
    asked.rename.rules.push(rule.to_owned());
};

#[test]
fn steps_together_are_steps_one_after_another() {
    for steps in [
        &[UNTIE, BF16, PAD, FP8][..],
        &[UNTIE, RENAME, CAST_HEAD, PAD],
        &[UNTIE, BF16, CUT],
        &[RENAME, PAD, FP8],
    ] {
        assert_steps(steps);
    }
}

#[test]
fn a_view_that_is_untied_and_then_tied_is_what_it_was() {
    let workspace = Workspace::new();
    let first = workspace.write("base", &base());
    let untied = materialized(&workspace, "untied", &ViewRequest::new(&*first).with(UNTIE));
    let tied = ViewRequest::new(&*untied).with(|asked| asked.tying.tie = true);
    let (tied, first) = (
        tied.plan().unwrap(),
        ViewRequest::new(&*first).plan().unwrap(),
    );
    assert!(tensors(&tied) == tensors(&first));
    assert_eq!(config(&tied), config(&first));
}

#[test]
fn a_quantized_view_of_an_untied_one_leaves_the_head_alone() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let request = ViewRequest::new(&*base)
        .with(|asked| [UNTIE, BF16, FP8].iter().for_each(|step| step(asked)));
    let plan = request.plan().unwrap();
    assert_eq!(tensors(&plan)[HEAD].dtype, Dtype::BF16);
    let declared = config(&plan)["quantization_config"]["modules_to_not_convert"].clone();
    assert_eq!(
        declared,
        serde_json::json!(["model.embed_tokens", "lm_head"])
    );
}

#[test]
fn the_mean_of_an_untied_head_is_that_of_the_embedding_and_found_once() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let request = ViewRequest::new(&*base).with(|asked| {
        UNTIE(asked);
        PAD(asked);
    });
    let plan = request.plan().unwrap();
    let found = tensors(&plan);
    assert!(found[HEAD].bytes == found[EMBEDDING].bytes);
    assert_eq!(found[HEAD].shape, [192, 128]);
    assert_eq!(plan.surveys().all, 140 * 128 * 4);
}

//! Any range of a merged tensor is that range of the whole, however the reader came to it.

use std::sync::Arc;

use ckptfs::ops::{LoraParams, LoraRequest, Operations, QuantizeParams};
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::Checkpoint;
use crate::common::readback::{read_file, tensors};
use crate::fixture::{Adapter, numbers, plan, weight};

/// A base of several bands a tensor, with plain LoRA, both kinds of DoRA, and an embedding.
fn several_bands() -> (Workspace, Plan) {
    let workspace = Workspace::new();
    let base = Checkpoint::single([
        weight("x", &[700, 1100]),
        weight("c_fc", &[900, 900 + 300]),
        weight("y", &[3000, 300]),
        weight("embed_tokens", &[2500, 260]),
    ])
    .config(r#"{"tie_word_embeddings": false}"#);
    let adapter = Adapter::new(3, 3.0)
        .set("use_dora", true)
        .linear("x", [700, 1100], 3)
        .linear("c_fc", [1200, 900], 3)
        .linear("y", [3000, 300], 3)
        .tensor(numbers(
            "embed_tokens.lora_embedding_A",
            Dtype::F32,
            &[3, 2500],
        ))
        .tensor(numbers(
            "embed_tokens.lora_embedding_B",
            Dtype::F32,
            &[260, 3],
        ))
        .tensor(numbers("x.lora_magnitude_vector", Dtype::F32, &[700]))
        .tensor(numbers("c_fc.lora_magnitude_vector", Dtype::F32, &[1200]))
        .tensor(numbers("y.lora_magnitude_vector", Dtype::F32, &[3000]))
        .tensor(numbers(
            "embed_tokens.lora_magnitude_vector",
            Dtype::F32,
            &[260],
        ));
    let base = workspace.write("base", &base);
    let plan = plan(&base, &adapter.write(&workspace, "lora")).unwrap();
    (workspace, plan)
}

#[test]
fn the_plan_tells_that_norms_of_columns_need_the_whole_weight_first() {
    let (_sources, plan) = several_bands();
    let surveys = plan.surveys();
    // The Conv1D and the embedding: DoRA's norms of the others are those of rows, which a tile has
    // anyway. Beside the weights there are their factors, which are padded.
    let [conv1d, embedding] = [900 * 1200, 2500 * 260].map(|elements| 2 * elements);
    let padded_factors = 64 << 10;
    let expected = |weights: u64| weights..weights + padded_factors;
    assert!(expected(conv1d).contains(&surveys.largest), "{surveys:?}");
    assert!(
        expected(conv1d + embedding).contains(&surveys.all),
        "{surveys:?}"
    );
}

#[test]
fn ranges_are_those_of_the_whole_with_any_cache() {
    let (_sources, plan) = several_bands();
    let entry = plan.shards[0].entry;
    let whole = read_file(&Reader::new(plan.view.clone(), 64 << 20), entry).unwrap();
    for cache in [0, 1 << 20, 64 << 20] {
        let reader = Reader::new(plan.view.clone(), cache);
        let strategy = (0..whole.len(), 1usize..3 << 20);
        proptest!(ProptestConfig::with_cases(24), |((start, len) in strategy)| {
            let mut bytes = vec![0xAA; len.min(whole.len() - start)];
            reader.read_at(entry, start as u64, &mut bytes).unwrap();
            prop_assert!(bytes == whole[start..start + bytes.len()]);
        });
    }
}

#[test]
fn readers_at_once_get_what_one_gets() {
    let (_sources, plan) = several_bands();
    let entry = plan.shards[0].entry;
    let whole = read_file(&Reader::new(plan.view.clone(), 64 << 20), entry).unwrap();
    let reader = Arc::new(Reader::new(plan.view.clone(), 2 << 20));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(read_file(&reader, entry).unwrap() == whole));
        }
    });
}

#[test]
fn what_is_merged_can_be_quantized() {
    let workspace = Workspace::new();
    let name = "model.layers.0.mlp.up_proj";
    let base = workspace.write("base", &Checkpoint::single([weight(name, &[256, 384])]));
    let adapter = Adapter::new(4, 4.0).linear(name, [256, 384], 4);
    let lora = adapter.write(&workspace, "lora");
    let merged = tensors(&plan(&base, &lora).unwrap());
    let merged = Checkpoint::single(merged.into_values());
    let fp8 = |base, loras| {
        let request = ViewRequest {
            operations: Operations {
                lora: LoraParams {
                    adapters: loras,
                    ..LoraParams::default()
                },
                quantize: QuantizeParams::by_rules(),
                ..Operations::default()
            },
            ..ViewRequest::new(base)
        };
        tensors(&request.plan().unwrap())
    };
    let at_once = fp8(
        base,
        vec![LoraRequest {
            adapter: lora.into(),
            weight: 1.0,
        }],
    );
    assert_eq!(at_once.len(), 2);
    assert_eq!(at_once, fp8(workspace.write("merged", &merged), Vec::new()));
}

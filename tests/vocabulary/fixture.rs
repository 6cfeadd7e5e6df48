//! Small language models, and views of them.

use std::collections::BTreeMap;
use std::path::Path;

use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;
use serde_json::Value;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback::{read_path, tensors};

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const HEAD: &str = "lm_head.weight";

/// The tensor called `name` of the same content as `other`.
pub(crate) fn copy(name: &str, other: &TensorData) -> TensorData {
    TensorData {
        name: name.to_owned(),
        ..other.clone()
    }
}

/// An embedding of `rows` rows.
pub(crate) fn embedding(rows: usize) -> TensorData {
    tensor(EMBEDDING, Dtype::BF16, &[rows, 8], 3)
}

/// A tied model of 12 tokens in two shards.
pub(crate) fn tied() -> Checkpoint {
    Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [
                embedding(12),
                bf16("model.layers.0.mlp.up_proj.weight", &[4, 8]),
            ],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [bf16("model.norm.weight", &[8])],
        )
        .config(r#"{"model_type": "llama", "tie_word_embeddings": true, "vocab_size": 12}"#)
}

/// The same with this head in the second shard.
pub(crate) fn with_head(head: TensorData, config: &str) -> Checkpoint {
    let mut checkpoint = tied().config(config);
    checkpoint.shards[1].tensors.push(head);
    checkpoint
}

/// The plan of a view of `checkpoint` by `ask`.
pub(crate) fn plan(
    checkpoint: &Checkpoint,
    ask: impl FnOnce(&mut ckptfs::ops::Operations),
) -> ckptfs::Result<Plan> {
    let workspace = Workspace::new();
    let base = workspace.write("base", checkpoint);
    // The files are open.
    ViewRequest::new(base).with(ask).plan()
}

/// config.json of the view.
pub(crate) fn config(plan: &Plan) -> Value {
    json(plan, "config.json")
}

pub(crate) fn json(plan: &Plan, path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&read_path(plan, path).expect("it is there")).unwrap()
}

/// The tensors of a checkpoint by name.
pub(crate) fn by_name(checkpoint: &Checkpoint) -> BTreeMap<String, TensorData> {
    let all = checkpoint.shards.iter().flat_map(|shard| &shard.tensors);
    all.map(|tensor| (tensor.name.clone(), tensor.clone()))
        .collect()
}

/// Asserts that the view has exactly `expected`.
pub(crate) fn assert_tensors(plan: &Plan, expected: &BTreeMap<String, TensorData>) {
    let found = tensors(plan);
    let names = |all: &BTreeMap<String, TensorData>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(expected));
    for (name, tensor) in expected {
        assert!(found[name] == *tensor, "{name}: {:?}", found[name]);
    }
}

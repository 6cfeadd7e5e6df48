//! The bytes, names and order of both forms.

use ckptfs::ops::{Experts, ExpertsParams, Operations};
use ckptfs::recipe::{Shards, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::readback::{read_all, tensors};
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

const SIZES: Sizes = Sizes {
    experts: 12,
    intermediate: 3,
    hidden: 10,
};

/// Every place in a model that has experts.
const LAYERS: [&str; 6] = [
    "model.layers.0.mlp",
    "model.layers.11.mlp",
    "model.language_model.layers.0.mlp",
    "model.layers.0.block_sparse_moe",
    "mtp.layers.0.mlp",
    "layers.3.feed_forward",
];

/// Tensors that belong to no expert, though some names are near.
fn others() -> Vec<TensorData> {
    [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.gate.weight",
        "model.layers.0.mlp.shared_expert.gate_proj.weight",
        "model.layers.0.mlp.shared_experts.down_proj.weight",
        "model.layers.0.mlp.shared_experts.gate_up_proj",
        "model.layers.0.mlp.experts.e_score_correction_bias",
        "model.layers.0.mlp.down_proj",
    ]
    .map(|name| bf16(name, &[4, 10]))
    .to_vec()
}

fn fused_layers(dtype: Dtype) -> Vec<Vec<TensorData>> {
    LAYERS
        .map(|layer| fused_layer(layer, dtype, SIZES))
        .to_vec()
}

fn unfused_layers(fused: &[Vec<TensorData>]) -> Vec<Vec<TensorData>> {
    let layers = LAYERS.iter().zip(fused);
    layers.map(|(layer, fused)| unfused(layer, fused)).collect()
}

/// Asserts that each of two checkpoints is what the view of the other shows in its form.
fn assert_forms(fused: &[TensorData], unfused: &[TensorData], hidden: usize) {
    let workspace = Workspace::new();
    for (from, to, experts) in [
        (fused, unfused, Experts::Unfuse),
        (unfused, fused, Experts::Fuse),
    ] {
        let base = workspace.write(&format!("{experts:?}"), &single(from, hidden));
        let plan = plan(&base, experts).unwrap();
        assert_eq!(tensors(&plan), by_name(to), "{experts:?}");
        assert!(
            plan.report.warnings.is_empty(),
            "{:?}",
            plan.report.warnings
        );
        let planned = plan.shards.iter().flat_map(|shard| &shard.tensors);
        for tensor in planned {
            assert!(!tensor.computed, "{} is a range of its source", tensor.name);
            assert_eq!(*tensor.from, base.join("model.safetensors"));
        }
    }
}

#[test]
fn every_expert_has_its_rows_of_the_fused_tensors_in_every_layer_and_prefix() {
    for dtype in [Dtype::BF16, Dtype::F32, Dtype::U8, Dtype::F8_E4M3] {
        let fused = fused_layers(dtype);
        let unfused = unfused_layers(&fused);
        assert_eq!(unfused.concat().len(), LAYERS.len() * 12 * 3);
        let with_others = |layers: Vec<Vec<TensorData>>| [others(), layers.concat()].concat();
        assert_forms(&with_others(fused), &with_others(unfused), SIZES.hidden);
    }
}

#[test]
fn fp8_scales_go_with_the_rows_that_they_scale() {
    // Down has blocks that are cut off; gate and up may not.
    let sizes = Sizes {
        experts: 11,
        intermediate: 256,
        hidden: 130,
    };
    for scale_dtype in [Dtype::F32, Dtype::BF16] {
        let layer = "model.layers.0.mlp";
        let fused = fused_fp8_layer(layer, scale_dtype, sizes);
        let unfused = unfused(layer, &fused);
        let shape = |name: &str| {
            let name = format!("{layer}.experts.10.{name}.weight_scale_inv");
            let found = unfused.iter().find(|tensor| tensor.name == name);
            found.unwrap().shape.clone()
        };
        assert_eq!(
            [shape("gate_proj"), shape("up_proj"), shape("down_proj")],
            [[2, 2]; 3]
        );
        assert_forms(&fused, &unfused, sizes.hidden);
    }
}

#[test]
fn a_layer_of_one_expert_changes_form_too() {
    let sizes = Sizes {
        experts: 1,
        ..SIZES
    };
    let layer = LAYERS[0];
    let fused = fused_layer(layer, Dtype::BF16, sizes);
    assert_forms(&fused, &unfused(layer, &fused), sizes.hidden);
}

/// The order of a view's tensors: each has a shard of its own.
fn order(workspace: &Workspace, base: &Checkpoint, experts: Experts) -> Vec<String> {
    let request = ViewRequest {
        operations: Operations {
            experts: ExpertsParams::all(experts),
            ..Operations::default()
        },
        shards: Some(Shards::Repack),
        shard_bytes: 1,
        ..ViewRequest::new(workspace.write(&format!("{experts:?}"), base))
    };
    let plan = request.plan().unwrap();
    let shards = plan.shards.iter();
    shards
        .flat_map(|shard| {
            let mut names: Vec<String> = shard.tensors.iter().map(|t| t.name.to_string()).collect();
            // A weight and its scales are in one shard.
            names.sort();
            names
        })
        .collect()
}

#[test]
fn the_new_tensors_stand_where_the_first_of_the_old_ones_stood_in_numeric_order() {
    let sizes = Sizes {
        experts: 12,
        intermediate: 128,
        hidden: 4,
    };
    let layer = LAYERS[0];
    let fused = fused_fp8_layer(layer, Dtype::F32, sizes);
    let unfused = unfused(layer, &fused);
    let names = |tensors: &[TensorData]| -> Vec<String> {
        tensors.iter().map(|tensor| tensor.name.clone()).collect()
    };
    let around = ["a", "b", "c"].map(|name| bf16(name, &[4, 4]));
    let checkpoint = |tensors: &[TensorData]| single(tensors, 4);
    let workspace = Workspace::new();

    // Between a and b is the first of them, between b and c the rest, in an order of its own.
    let scattered = |old: &[TensorData]| {
        let mut rest = old.to_vec();
        rest.reverse();
        let first = rest.pop().unwrap();
        let [a, b, c] = around.clone();
        [vec![a, first, b], rest, vec![c]].concat()
    };
    let expected = |new: &[TensorData]| {
        let new = names(new);
        [
            &["a".to_owned()],
            &new[..],
            &["b".to_owned(), "c".to_owned()],
        ]
        .concat()
    };
    assert_eq!(
        order(&workspace, &checkpoint(&scattered(&fused)), Experts::Unfuse),
        expected(&unfused)
    );
    assert_eq!(
        order(&workspace, &checkpoint(&scattered(&unfused)), Experts::Fuse),
        expected(&fused)
    );
}

#[test]
fn one_form_made_from_the_other_and_back_is_the_checkpoint_it_was_byte_for_byte() {
    let fused = fused_layers(Dtype::BF16).concat();
    let unfused = unfused_layers(&fused_layers(Dtype::BF16)).concat();
    for (source, there, back) in [
        (fused, Experts::Unfuse, Experts::Fuse),
        (unfused, Experts::Fuse, Experts::Unfuse),
    ] {
        let workspace = Workspace::new();
        let base = Checkpoint::new()
            .config(&config(SIZES.hidden))
            .shard("a.safetensors", others())
            .shard("b.safetensors", source.clone());
        let base = workspace.write("base", &base);
        let source = [others(), source].concat();
        // Packed into one new shard, so that files can be compared whole.
        let original = workspace.path().join("original");
        let repacked = ViewRequest {
            shards: Some(Shards::Repack),
            shard_bytes: 1 << 20,
            ..ViewRequest::new(&base)
        };
        write_view(&repacked.plan().unwrap(), &original);
        let between = workspace.path().join("between");
        write_view(&plan(&original, there).unwrap(), &between);
        let between = plan(&between, back).unwrap();
        assert!(
            between.shards[0].whole_file.is_none(),
            "{back:?} changes the shard"
        );
        assert_eq!(tensors(&between), by_name(&source));
        let again = read_all(&between);
        let original = read_all(&ViewRequest::new(&original).plan().unwrap());
        for (path, bytes) in &original {
            assert!(again[path] == *bytes, "{} differs", path.display());
        }
        assert_eq!(again.len(), original.len());
    }
}

#[test]
fn a_view_without_such_experts_is_the_base_and_the_plan_says_so() {
    let workspace = Workspace::new();
    let fused = fused_layers(Dtype::BF16).concat();
    let unfused = unfused_layers(&fused_layers(Dtype::BF16)).concat();
    for (tensors, experts, flag, wanted) in [
        (
            &fused,
            Experts::Fuse,
            "--fuse-experts",
            "*.experts.<number>.{gate,up,down}_proj.weight",
        ),
        (
            &unfused,
            Experts::Unfuse,
            "--unfuse-experts",
            "*.experts.{gate_up,down}_proj",
        ),
    ] {
        let base = workspace.write(flag, &single(tensors, SIZES.hidden));
        let plan = plan(&base, experts).unwrap();
        assert_eq!(plan.report.warnings.len(), 1);
        assert_names(&plan.report.warnings[0], &["no effect", wanted]);
        assert_eq!(plan.shards.len(), 1);
        let whole = plan.shards[0].whole_file.as_ref();
        assert_eq!(whole, Some(&base.join("model.safetensors")));
    }
}

//! Which shards experts in a new form are in, and what a view shows of those they came from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use ckptfs::ops::{Experts, ExpertsParams, Operations, PatchParams};
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::view::View;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16};
use crate::common::readback::tensors;
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

const LAYER: &str = "model.layers.0.mlp";
const SIZES: Sizes = Sizes {
    experts: 12,
    intermediate: 4,
    hidden: 8,
};

fn fused() -> Vec<TensorData> {
    fused_layer(LAYER, Dtype::BF16, SIZES)
}

/// One shard for each of `shards`, of standard names unless `prefix` is another.
fn sharded(prefix: &str, shards: &[Vec<TensorData>]) -> Checkpoint {
    let count = shards.len();
    shards.iter().enumerate().fold(
        Checkpoint::new().config(&config(SIZES.hidden)),
        |checkpoint, (i, tensors)| {
            let name = format!("{prefix}-{:05}-of-{count:05}.safetensors", i + 1);
            checkpoint.shard(&name, tensors.clone())
        },
    )
}

/// The unfused tensors dealt out to `count` shards one by one, so that every expert lies in
/// several, and nothing lies in order.
fn dealt(count: usize) -> Vec<Vec<TensorData>> {
    let mut shards = vec![Vec::new(); count];
    for (i, tensor) in unfused(LAYER, &fused()).into_iter().rev().enumerate() {
        shards[i % count].push(tensor);
    }
    shards
}

fn names(plan: &Plan) -> Vec<(&str, Vec<&str>)> {
    let shards = plan.shards.iter();
    shards
        .map(|shard| {
            let tensors = shard.tensors.iter().map(|t| &*t.name);
            (shard.name.as_str(), tensors.collect())
        })
        .collect()
}

fn experts(name: &str) -> String {
    format!("{LAYER}.experts.{name}")
}

#[test]
fn experts_that_are_spread_over_shards_are_fused_in_numeric_order() {
    let mut shards = dealt(5);
    shards[4].push(bf16("model.norm.weight", &[8]));
    let workspace = Workspace::new();
    let base = workspace.write("base", &sharded("model", &shards));
    let plan = plan(&base, Experts::Fuse).unwrap();
    let expected = [fused(), vec![bf16("model.norm.weight", &[8])]].concat();
    assert_eq!(tensors(&plan), by_name(&expected));
}

#[test]
fn fused_experts_are_where_the_first_was_and_shards_left_empty_are_not_shown() {
    // Of three kinds of tensors a shard each, gates come first.
    let unfused = unfused(LAYER, &fused());
    let of = |projection: &str| -> Vec<TensorData> {
        let is_one = |tensor: &&TensorData| tensor.name.ends_with(&format!("{projection}.weight"));
        unfused.iter().filter(is_one).cloned().collect()
    };
    let base = sharded("model", &[of("gate_proj"), of("up_proj"), of("down_proj")]);
    let workspace = Workspace::new();
    let plan = plan(&workspace.write("base", &base), Experts::Fuse).unwrap();
    let (gate_up, down) = (experts("gate_up_proj"), experts("down_proj"));
    assert_eq!(
        names(&plan),
        [
            ("model-00001-of-00002.safetensors", vec![gate_up.as_str()]),
            ("model-00002-of-00002.safetensors", vec![down.as_str()]),
        ]
    );
    assert_eq!(tensors(&plan), by_name(&fused()));
}

#[test]
fn unfused_experts_stay_in_the_shard_of_their_fused_tensor_and_others_are_untouched() {
    let norm = vec![bf16("model.norm.weight", &[8])];
    let [gate_up, down] = <[TensorData; 2]>::try_from(fused()).unwrap();
    let base = sharded("model", &[vec![down], norm, vec![gate_up]]);
    let workspace = Workspace::new();
    let base = workspace.write("base", &base);
    let plan = plan(&base, Experts::Unfuse).unwrap();
    let lengths: Vec<(usize, bool)> = plan
        .shards
        .iter()
        .map(|shard| (shard.tensors.len(), shard.whole_file.is_some()))
        .collect();
    assert_eq!(lengths, [(12, false), (1, true), (24, false)]);
    let parts = |shard: usize| plan.shards[shard].tensors.iter().map(|t| &t.name);
    assert!(parts(0).all(|name| name.ends_with(".down_proj.weight")));
    assert!(parts(2).all(|name| !name.ends_with(".down_proj.weight")));
}

#[test]
fn shards_of_other_names_are_packed_anew_also_if_patched() {
    // Down, up and gate in a shard each.
    let base = sharded("engine", &dealt(3));
    let workspace = Workspace::new();
    let alone = plan(&workspace.write("alone", &base), Experts::Fuse).unwrap();
    let extra = Checkpoint::single([bf16("model.norm.weight", &[8])]);
    let patched = plan_patched(&workspace, &base, &extra, Experts::Fuse);
    let (gate_up, down) = (experts("gate_up_proj"), experts("down_proj"));
    for (plan, others) in [(alone, &[][..]), (patched, &["model.norm.weight"])] {
        let all = [&[down.as_str(), gate_up.as_str()], others].concat();
        assert_eq!(names(&plan), [("model-00001-of-00001.safetensors", all)]);
    }
}

#[test]
fn scales_that_lay_elsewhere_are_in_the_shard_of_their_fused_weight() {
    let sizes = Sizes {
        intermediate: 128,
        ..SIZES
    };
    let fused = fused_fp8_layer(LAYER, Dtype::F32, sizes);
    let (scales, weights) = unfused(LAYER, &fused)
        .into_iter()
        .partition(|tensor| tensor.name.ends_with("_scale_inv"));
    let workspace = Workspace::new();
    let base = workspace.write("base", &sharded("model", &[scales, weights]));
    let plan = plan(&base, Experts::Fuse).unwrap();
    assert_eq!(plan.shards.len(), 1, "{:?}", names(&plan));
    assert_eq!(tensors(&plan), by_name(&fused));
}

/// The plan of `base` patched with `extra`, in a new form.
fn plan_patched(
    workspace: &Workspace,
    base: &Checkpoint,
    extra: &Checkpoint,
    experts: Experts,
) -> Plan {
    ViewRequest {
        operations: Operations {
            patch: PatchParams {
                extras: vec![workspace.write("extra", extra).into()],
            },
            experts: ExpertsParams::all(experts),
            ..Operations::default()
        },
        ..ViewRequest::new(workspace.write("base", base))
    }
    .plan()
    .unwrap()
}

#[test]
fn experts_of_an_extra_change_form_and_may_complete_those_of_the_base() {
    let workspace = Workspace::new();
    let mut shards = dealt(2);
    let extra = Checkpoint::single(shards.pop().unwrap());
    let base = sharded("model", &shards);
    let alone = workspace.write("alone", &base);
    assert_names(
        &plan(&alone, Experts::Fuse).unwrap_err().to_string(),
        &["is missing"],
    );
    let plan = plan_patched(&workspace, &base, &extra, Experts::Fuse);
    assert_eq!(tensors(&plan), by_name(&fused()));

    let workspace = Workspace::new();
    let norm = bf16("model.norm.weight", &[8]);
    let base = sharded("model", &[vec![norm.clone()]]);
    let plan = plan_patched(
        &workspace,
        &base,
        &Checkpoint::single(fused()),
        Experts::Unfuse,
    );
    let expected = [unfused(LAYER, &fused()), vec![norm]].concat();
    assert_eq!(tensors(&plan), by_name(&expected));
    let [kept, added] = &plan.shards[..] else {
        panic!("{:?}", names(&plan));
    };
    assert!(kept.whole_file.is_some());
    assert_eq!(added.tensors.len(), 36);
}

fn mode_and_time(plan: &Plan, name: &str) -> (u32, SystemTime) {
    let id = plan.view.lookup(View::ROOT, name.as_ref()).unwrap();
    let attributes = plan.view.get(id).unwrap().attributes;
    (attributes.mode, attributes.mtime)
}

#[test]
fn a_shard_of_fused_experts_is_as_private_and_as_young_as_the_sources_of_its_parts() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &sharded("model", &dealt(5)));
    let set = |name: &str, mode: u32, time: SystemTime| {
        let path = base.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    };
    let young = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (shard, mode, time) in [
        (1, 0o644, old),
        (2, 0o640, young),
        (3, 0o644, old),
        (4, 0o604, old),
        (5, 0o644, old),
    ] {
        set(
            &format!("model-{shard:05}-of-00005.safetensors"),
            mode,
            time,
        );
    }
    set("config.json", 0o644, old);
    let stored = plan(&base, Experts::Fuse).unwrap();
    let quantized = plan_fp8(&base, Some(Experts::Fuse));
    for plan in [stored, quantized] {
        for shard in &plan.shards {
            assert_eq!(mode_and_time(&plan, &shard.name), (0o400, young));
        }
    }
}

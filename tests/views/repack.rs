//! Which shards a view has: the source's, or new ones of the standard names.

use ckptfs::ops::QuantizeParams;
use ckptfs::recipe::{Plan, Shards, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::compare::assert_view;
use crate::common::oracle::Wanted;
use crate::common::{Workspace, assert_names, message};

const LAYER: &str = "model.layers.0.self_attn.o_proj.weight";

fn names(plan: &Plan) -> Vec<&str> {
    plan.shards
        .iter()
        .map(|shard| shard.name.as_str())
        .collect()
}

/// The tensors of each shard.
fn contents(plan: &Plan) -> Vec<Vec<&str>> {
    let shards = plan.shards.iter();
    shards
        .map(|shard| shard.tensors.iter().map(|t| &*t.name).collect())
        .collect()
}

/// Two shards of these names with a BF16 vector of 64 bytes each, and one more in the first.
fn named(first: &str, second: &str) -> Checkpoint {
    Checkpoint::new()
        .shard(first, [bf16("a", &[32]), bf16("c", &[32])])
        .shard(second, [bf16("b", &[32])])
}

const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";

#[test]
fn a_single_file_has_all_tensors_and_no_index() {
    let layer = bf16(LAYER, &[130, 140]);
    let plain = Wanted {
        shards: Some(Shards::Single),
        ..Wanted::new(named(ONE, TWO).shard("other.safetensors", [layer]))
    };
    let plan = assert_view(&plain);
    assert_eq!(names(&plan), ["model.safetensors"]);
    let patched = Wanted {
        extras: vec![Checkpoint::single([bf16("z", &[4]), bf16("a", &[32])])],
        ..plain
    };
    let plan = assert_view(&patched.fp8_by_rules(QuantizeParams::default()));
    let scales = format!("{LAYER}_scale_inv");
    assert_eq!(contents(&plan), [["a", "b", "c", LAYER, &scales, "z"]]);
}

#[test]
fn a_single_file_that_is_there_is_the_source_file() {
    let wanted = Wanted {
        shards: Some(Shards::Single),
        ..Wanted::new(Checkpoint::single([bf16("a", &[32]), bf16("b", &[2])]))
    };
    let plan = assert_view(&wanted);
    assert!(plan.shards[0].whole_file.is_some());
}

#[test]
fn a_single_file_has_no_shard_size() {
    let workspace = Workspace::new();
    let request = ViewRequest {
        shards: Some(Shards::Single),
        shard_bytes: 1 << 20,
        ..ViewRequest::new(workspace.write("base", &named(ONE, TWO)))
    };
    assert_names(&message(request.plan()), &["single file", "shard size"]);
}

/// Two shards of 60 names of a million characters each: a header of both is longer than readers accept.
#[test]
fn a_header_too_long_for_readers_is_an_error_that_says_what_to_leave_out() {
    let workspace = Workspace::new();
    let shard = |first: usize| {
        let long = "x".repeat(1_000_000);
        (first..first + 60).map(move |i| bf16(&format!("{i}{long}"), &[1]))
    };
    let base = Checkpoint::new()
        .shard(ONE, shard(100))
        .shard(TWO, shard(200));
    let kept = ViewRequest::new(workspace.write("base", &base));
    assert_eq!(kept.plan().unwrap().shards.len(), 2);
    let single = ViewRequest {
        shards: Some(Shards::Single),
        ..kept
    };
    let parts = ["model.safetensors", "100000000", "leave out single_file"];
    assert_names(&message(single.plan()), &parts);
}

#[test]
fn standard_names_are_kept_with_what_is_in_them() {
    let plan = assert_view(&Wanted::new(named(ONE, TWO)));
    assert_eq!(names(&plan), [ONE, TWO]);
    assert_eq!(contents(&plan), [vec!["a", "c"], vec!["b"]]);
}

#[test]
fn standard_names_are_kept_though_their_numbers_do_not_fit() {
    let gap = "model-00007-of-00009.safetensors";
    let plan = assert_view(&Wanted::new(named(gap, ONE)));
    assert_eq!(names(&plan), [gap, ONE]);
}

#[test]
fn any_other_name_makes_the_view_repack() {
    let others = [
        "engine_rank0.safetensors",
        "model-1-of-2.safetensors",
        "model-000001-of-000002.safetensors",
        "model-00001-of-0000x.safetensors",
        "model_00001-of-00002.safetensors",
        "Model-00001-of-00002.safetensors",
        "xmodel-00001-of-00002.safetensors",
        "model-00001-of-00002.x.safetensors",
        "model-00001-of-00002.fp8.safetensors",
        "model.1.safetensors",
    ];
    for other in others {
        let plan = assert_view(&Wanted::new(named(other, TWO)));
        assert_eq!(
            names(&plan),
            ["model-00001-of-00001.safetensors"],
            "{other}"
        );
    }
}

#[test]
fn other_names_are_kept_where_repacking_is_declined() {
    let mut wanted = Wanted::new(named("engine_b.safetensors", "engine_a.safetensors"));
    wanted.shards = Some(Shards::Keep);
    let plan = assert_view(&wanted);
    assert_eq!(
        names(&plan),
        ["engine_b.safetensors", "engine_a.safetensors"]
    );
}

#[test]
fn standard_shards_are_repacked_where_that_is_asked_for() {
    let mut wanted = Wanted::new(named(ONE, TWO).index_order(["b", "c", "a"]));
    wanted.shards = Some(Shards::Repack);
    wanted.shard_bytes = 128;
    assert_eq!(contents(&assert_view(&wanted)), [vec!["b", "c"], vec!["a"]]);
    wanted.shard_bytes = 127;
    assert_eq!(contents(&assert_view(&wanted)), [["b"], ["c"], ["a"]]);
    wanted.shard_bytes = 1 << 40;
    assert_eq!(contents(&assert_view(&wanted)), [["a", "b", "c"]]);
}

#[test]
fn a_single_file_becomes_numbered_shards_where_repacking_is_asked_for() {
    let mut wanted = Wanted::new(Checkpoint::single([bf16("a", &[32]), bf16("b", &[32])]));
    wanted.shards = Some(Shards::Repack);
    wanted.shard_bytes = 64;
    assert_eq!(names(&assert_view(&wanted)), [ONE, TWO]);
}

#[test]
fn a_tensor_larger_than_the_shard_size_is_alone() {
    let tensors = [
        bf16("a", &[8]),
        bf16("b", &[800]),
        bf16("c", &[8]),
        bf16("d", &[8]),
    ];
    let mut wanted = Wanted::new(Checkpoint::single(tensors));
    wanted.shards = Some(Shards::Repack);
    wanted.shard_bytes = 100;
    assert_eq!(
        contents(&assert_view(&wanted)),
        [vec!["a"], vec!["b"], vec!["c", "d"]]
    );
}

#[test]
fn shards_are_numbered_with_five_digits_and_their_total() {
    let tensors = (0..12).map(|i| bf16(&format!("t{i:02}"), &[4]));
    let mut wanted = Wanted::new(Checkpoint::single(tensors));
    wanted.shards = Some(Shards::Repack);
    wanted.shard_bytes = 8;
    let plan = assert_view(&wanted);
    assert_eq!(plan.shards[10].name, "model-00011-of-00012.safetensors");
}

/// An FP8 view, packed, of a weight of 64 × 128 (8192 codes, one scale of 4 bytes) between others.
fn packed_fp8(shard_bytes: u64) -> Plan {
    let base = Checkpoint::single([bf16("a", &[32]), bf16(LAYER, &[64, 128]), bf16("z", &[32])]);
    let mut wanted = Wanted::new(base).fp8_by_rules(QuantizeParams::default());
    wanted.shards = Some(Shards::Repack);
    wanted.shard_bytes = shard_bytes;
    assert_view(&wanted)
}

#[test]
fn a_weight_and_its_scale_count_as_one_and_never_part() {
    let scale = format!("{LAYER}_scale_inv");
    let alone = vec![LAYER, &scale];
    for shard_bytes in [1, 8191, 8192, 8195] {
        let plan = packed_fp8(shard_bytes);
        assert_eq!(
            contents(&plan),
            [vec!["a"], alone.clone(), vec!["z"]],
            "{shard_bytes}"
        );
    }
    assert_eq!(
        contents(&packed_fp8(8196)),
        [vec!["a"], alone.clone(), vec!["z"]]
    );
    assert_eq!(contents(&packed_fp8(8196 + 64))[0], ["a", LAYER, &scale]);
    assert_eq!(contents(&packed_fp8(8196 + 63))[0], ["a"]);
    assert_eq!(contents(&packed_fp8(8196 + 128)).len(), 1);
}

/// FP8 weights of 64 bytes and their scales, all scales first.
fn quantized_before() -> Vec<TensorData> {
    let weights = (0..4).map(|i| format!("model.layers.{i}.self_attn.o_proj.weight"));
    let weights: Vec<String> = weights.collect();
    let scales = weights
        .iter()
        .map(|name| tensor(&format!("{name}_scale_inv"), Dtype::F32, &[1, 1], 1));
    let codes = weights
        .iter()
        .map(|name| tensor(name, Dtype::F8_E4M3, &[8, 8], 1));
    scales.chain(codes).collect()
}

#[test]
fn a_weight_and_its_scale_that_are_far_apart_in_the_source_are_packed_together() {
    let mut wanted = Wanted::new(Checkpoint::single(quantized_before()));
    wanted.shards = Some(Shards::Repack);
    wanted.shard_bytes = 70;
    let plan = assert_view(&wanted);
    assert_eq!(plan.shards.len(), 4);
    for shard in contents(&plan) {
        let weight = shard.iter().find(|name| name.ends_with(".weight")).unwrap();
        assert!(shard.contains(&format!("{weight}_scale_inv").as_str()));
    }
}

#[test]
fn an_fp8_view_keeps_the_partition_and_puts_each_scale_beside_its_weight() {
    let other = "model.layers.1.self_attn.o_proj.weight";
    let base = Checkpoint::new()
        .shard(ONE, [bf16("a", &[32]), bf16(LAYER, &[130, 128])])
        .shard(TWO, [bf16(other, &[128, 130]), bf16("z", &[32])])
        .index_order(["z", LAYER, other, "a"]);
    let plan = assert_view(&Wanted::new(base).fp8_by_rules(QuantizeParams::default()));
    // The index names the second shard first.
    assert_eq!(names(&plan), [TWO, ONE]);
    assert_eq!(
        contents(&plan)[0],
        [other, &format!("{other}_scale_inv"), "z"]
    );
}

#[test]
fn a_shard_of_an_fp8_view_in_which_nothing_is_quantized_is_the_source_file() {
    let base = Checkpoint::new()
        .shard(ONE, [bf16("a", &[32])])
        .shard(TWO, [bf16(LAYER, &[128, 128])]);
    let plan = assert_view(&Wanted::new(base).fp8_by_rules(QuantizeParams::default()));
    let whole: Vec<bool> = plan
        .shards
        .iter()
        .map(|shard| shard.whole_file.is_some())
        .collect();
    assert_eq!(whole, [true, false]);
}

#[test]
fn an_fp8_view_of_a_single_file_is_a_single_file() {
    let base = Checkpoint::single([bf16("a", &[32]), bf16(LAYER, &[128, 128])]);
    let plan = assert_view(&Wanted::new(base).fp8_by_rules(QuantizeParams::default()));
    assert_eq!(names(&plan), ["model.safetensors"]);
}

/// A patch of a base with these names that is quantized too.
fn patched_fp8(first: &str, second: &str) -> Wanted {
    let added = "model.layers.1.self_attn.o_proj.weight";
    let extra = Checkpoint::single([bf16(added, &[64, 128]), bf16("model.norm.weight", &[64])]);
    let base = named(first, second);
    let base = Checkpoint {
        shards: base.shards,
        ..Checkpoint::new()
    };
    Wanted {
        extras: vec![extra],
        shard_bytes: 8200,
        ..Wanted::new(base)
    }
    .fp8_by_rules(QuantizeParams::default())
}

#[test]
fn a_patched_fp8_view_renumbers_standard_shards_and_packs_what_is_added() {
    let plan = assert_view(&patched_fp8(ONE, TWO));
    assert_eq!(plan.shards.len(), 4);
    assert!(
        plan.shards[..2]
            .iter()
            .all(|shard| shard.whole_file.is_some())
    );
}

#[test]
fn a_patched_fp8_view_repacks_shards_of_other_names_unless_declined() {
    let mut wanted = patched_fp8("engine_a.safetensors", "engine_b.safetensors");
    let plan = assert_view(&wanted);
    assert_eq!(contents(&plan)[0], ["a", "b", "c"]);
    wanted.shards = Some(Shards::Keep);
    let plan = assert_view(&wanted);
    assert_eq!(contents(&plan)[0], ["a", "c"]);
    assert_eq!(names(&plan)[0], "model-00001-of-00004.safetensors");
}

#[test]
fn a_shard_size_of_zero_is_an_error() {
    let workspace = crate::common::Workspace::new();
    let mut wanted = Wanted::new(named(ONE, TWO));
    wanted.shard_bytes = 0;
    crate::common::assert_names(
        &crate::common::message(wanted.write(&workspace).plan()),
        &["shard_size"],
    );
}

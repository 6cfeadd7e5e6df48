//! Patched views: the base's tensors, and what the extras add to them.

use ckptfs::recipe::Shards;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::common::compare::{assert_plan, assert_view};
use crate::common::oracle::Wanted;
use crate::common::readback::{read_path, tensors};
use crate::common::{Workspace, plan_patch};

fn patched(base: Checkpoint, extras: impl IntoIterator<Item = Checkpoint>) -> Wanted {
    Wanted {
        extras: extras.into_iter().collect(),
        ..Wanted::new(base)
    }
}

fn layer(i: usize) -> String {
    format!("model.layers.{i}.self_attn.o_proj.weight")
}

/// Two shards with a layer each.
fn base() -> Checkpoint {
    Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [bf16(&layer(0), &[8, 16])],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [bf16(&layer(1), &[8, 16])],
        )
}

/// Names of the tensors of each shard that holds nothing of the base's two.
fn added_shards(wanted: &Wanted) -> Vec<Vec<String>> {
    let plan = assert_view(wanted);
    plan.shards[2..]
        .iter()
        .map(|shard| shard.tensors.iter().map(|t| t.name.to_string()).collect())
        .collect()
}

#[test]
fn tensors_only_in_an_extra_are_added_behind_the_base() {
    let extra = Checkpoint::single([bf16(&layer(0), &[8, 16]), bf16("model.norm.weight", &[16])]);
    let wanted = patched(base(), [extra]);
    assert_eq!(added_shards(&wanted), [["model.norm.weight"]]);
}

#[test]
fn the_base_wins_also_where_an_extra_has_another_dtype_and_shape() {
    let other = tensor(&layer(0), Dtype::F32, &[4, 4], 1);
    let extra = Checkpoint::single([other, bf16("model.norm.weight", &[16])]);
    let wanted = patched(base(), [extra]);
    let workspace = Workspace::new();
    let plan = wanted.write(&workspace).plan().unwrap();
    assert_eq!(&tensors(&plan)[&layer(0)], base().get(&layer(0)));
    assert_plan(&wanted, &plan);
}

#[test]
fn of_several_extras_the_first_that_has_a_tensor_gives_it() {
    let extra = |seed| {
        Checkpoint::single([
            tensor("model.norm.weight", Dtype::BF16, &[16], seed),
            tensor(
                &format!("model.extra_{seed}.weight"),
                Dtype::BF16,
                &[16],
                seed,
            ),
        ])
    };
    let wanted = patched(base(), [extra(1), extra(2)]);
    let workspace = Workspace::new();
    let plan = wanted.write(&workspace).plan().unwrap();
    let given = &tensors(&plan)["model.norm.weight"];
    assert_eq!(given, extra(1).get("model.norm.weight"));
    assert_ne!(given, extra(2).get("model.norm.weight"));
    assert_plan(&wanted, &plan);
}

#[test]
fn base_shards_are_numbered_in_the_order_in_which_the_index_names_them() {
    let (first, second) = (layer(0), layer(1));
    let base = base().index_order([second.as_str(), first.as_str()]);
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])]);
    let plan = assert_view(&patched(base, [extra]));
    let first_shard = &plan.shards[0];
    assert_eq!(first_shard.name, "model-00001-of-00003.safetensors");
    let source = first_shard.whole_file.as_ref().unwrap();
    assert!(source.ends_with("model-00002-of-00002.safetensors"));
}

#[test]
fn a_plain_patch_renumbers_shards_of_any_name_without_repacking_them() {
    let base = Checkpoint::new()
        .shard("engine_b.safetensors", [bf16(&layer(0), &[8, 16])])
        .shard("engine_a.safetensors", [bf16(&layer(1), &[8, 16])]);
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])]);
    let plan = assert_view(&patched(base, [extra]));
    assert!(
        plan.shards[0]
            .whole_file
            .as_ref()
            .unwrap()
            .ends_with("engine_b.safetensors")
    );
    assert!(
        plan.shards[1]
            .whole_file
            .as_ref()
            .unwrap()
            .ends_with("engine_a.safetensors")
    );
}

#[test]
fn a_single_file_base_becomes_the_first_numbered_shard() {
    let base = Checkpoint::single([bf16(&layer(0), &[8, 16])]);
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])]);
    let plan = assert_view(&patched(base, [extra]));
    assert_eq!(plan.shards[0].name, "model-00001-of-00002.safetensors");
    assert!(read_path(&plan, "model.safetensors").is_none());
}

#[test]
fn the_bytes_of_base_shards_are_unchanged_whatever_their_headers_look_like() {
    let tight = "model-00001-of-00001.safetensors";
    let base = Checkpoint::new().shard(tight, [tensor("odd", Dtype::U8, &[3], 1), bf16("b", &[5])]);
    let extra = Checkpoint::single([bf16("c", &[16])]);
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base);
    // JSON order the reverse of the offset order, odd metadata, no padding.
    let mut file = crate::common::safetensors_file::with_length(
        r#"{"b":{"dtype":"BF16","shape":[5],"data_offsets":[3,13]},"__metadata__":{"x":"y"},"odd":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#,
    );
    file.extend_from_slice(&[9; 13]);
    std::fs::write(directory.join(tight), &file).unwrap();
    let extra = workspace.write("extra", &extra);
    let plan = plan_patch(&directory, &[&extra]).unwrap();
    assert_eq!(
        read_path(&plan, "model-00001-of-00002.safetensors").unwrap(),
        file
    );
    assert_eq!(*tensors(&plan)["b"].bytes, [9; 10]);
}

/// An extra with BF16 vectors of `lens` elements named t0, t1, … in this order of the index.
fn extra_of(lens: &[usize], order: &[&str]) -> Checkpoint {
    let names = (0..lens.len()).map(|i| format!("t{i}"));
    let tensors: Vec<_> = names
        .zip(lens)
        .map(|(name, len)| bf16(&name, &[*len]))
        .collect();
    Checkpoint::new()
        .shard("model-00001-of-00001.safetensors", tensors)
        .index_order(order.iter().copied())
}

#[test]
fn added_tensors_are_packed_greedily_in_the_extras_index_order_up_to_the_shard_size() {
    // 40, 24, 60, 4 and 60 bytes; the index names t3 first.
    let extra = extra_of(&[20, 12, 30, 2, 30], &["t3", "t0", "t1", "t2", "t4"]);
    let mut wanted = patched(base(), [extra]);
    wanted.shard_bytes = 68;
    // t3 + t0 + t1 are exactly 68 bytes.
    assert_eq!(
        added_shards(&wanted),
        [vec!["t0", "t1", "t3"], vec!["t2"], vec!["t4"]].map(sorted)
    );
    wanted.shard_bytes = 67;
    assert_eq!(
        added_shards(&wanted),
        [vec!["t0", "t3"], vec!["t1"], vec!["t2"], vec!["t4"]].map(sorted)
    );
}

/// In the order of a shard: multiples of 8 bytes first.
fn sorted(names: Vec<&str>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.sort_by_key(|name| (["t2", "t3", "t4"].contains(&name.as_str()), name.clone()));
    names
}

#[test]
fn an_added_tensor_larger_than_the_shard_size_has_a_shard_of_its_own() {
    let extra = extra_of(&[4, 400, 4], &["t0", "t1", "t2"]);
    let mut wanted = patched(base(), [extra]);
    wanted.shard_bytes = 64;
    assert_eq!(added_shards(&wanted), [["t0"], ["t1"], ["t2"]]);
}

#[test]
fn added_tensors_without_elements_open_no_shard_beside_a_full_one() {
    let extra = extra_of(&[32, 0, 32], &["t0", "t1", "t2"]);
    let mut wanted = patched(base(), [extra]);
    wanted.shard_bytes = 64;
    assert_eq!(added_shards(&wanted), [vec!["t0", "t1"], vec!["t2"]]);
}

#[test]
fn a_shard_with_tensors_that_the_index_does_not_name_is_given_a_new_header() {
    let stale = bf16("stale.weight", &[4, 4]);
    let base = base().unnamed([stale.clone()]);
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])]);
    let plan = assert_view(&patched(base, [extra]));
    assert!(
        plan.shards[0].whole_file.is_some(),
        "the clean shard is kept"
    );
    assert!(plan.shards[1].whole_file.is_none(), "the other is not");
    assert!(!tensors(&plan).contains_key("stale.weight"));
}

#[test]
fn an_extra_may_give_a_tensor_that_a_base_shard_holds_unnamed() {
    let base = base().unnamed([tensor("model.norm.weight", Dtype::BF16, &[16], 1)]);
    let given = tensor("model.norm.weight", Dtype::BF16, &[16], 2);
    let wanted = patched(base, [Checkpoint::single([given.clone()])]);
    let workspace = Workspace::new();
    let plan = wanted.write(&workspace).plan().unwrap();
    assert_plan(&wanted, &plan);
    assert_eq!(tensors(&plan)["model.norm.weight"], given);
}

#[test]
fn what_an_extra_holds_unnamed_is_not_added() {
    let extra = Checkpoint::new()
        .shard("model-00001-of-00001.safetensors", [bf16("a", &[16])])
        .unnamed([bf16("stale", &[16])]);
    assert_eq!(added_shards(&patched(base(), [extra])), [["a"]]);
}

#[test]
fn a_patched_view_can_be_repacked() {
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])]);
    let mut wanted = patched(base(), [extra]);
    wanted.shards = Some(Shards::Repack);
    let plan = assert_view(&wanted);
    assert_eq!(plan.shards.len(), 1);
}

#[test]
fn aux_files_are_the_bases_alone() {
    let base = base()
        .aux("tokenizer.json", "base")
        .aux("notes/a.txt", "base");
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])])
        .config(r#"{"architectures": ["TestForCausalLM"], "hidden_size": 1}"#)
        .aux("tokenizer.json", "extra")
        .aux("notes/b.txt", "extra")
        .aux("only-in-extra.json", "extra");
    let plan = assert_view(&patched(base, [extra]));
    assert_eq!(read_path(&plan, "tokenizer.json").unwrap(), b"base");
    assert!(read_path(&plan, "only-in-extra.json").is_none());
    assert!(read_path(&plan, "notes/b.txt").is_none());
}

#[test]
fn a_stray_file_of_the_base_never_stands_in_for_a_shard_of_the_view() {
    let base = base().aux(
        "model-00003-of-00003.safetensors",
        "not a shard of the base",
    );
    let extra = Checkpoint::single([bf16("model.norm.weight", &[16])]);
    let workspace = Workspace::new();
    let base = workspace.write("base", &base);
    let extra = workspace.write("extra", &extra);
    let plan = plan_patch(&base, &[&extra]).unwrap();
    assert_eq!(plan.shards[2].name, "model-00003-of-00003.safetensors");
    assert!(tensors(&plan).contains_key("model.norm.weight"));
}

#[test]
fn the_report_counts_what_each_source_gives() {
    let first = Checkpoint::single([bf16(&layer(0), &[8, 16]), bf16("a", &[16])]);
    let second = Checkpoint::single([bf16("a", &[16]), bf16("b", &[16]), bf16("c", &[16])]);
    let plan = assert_view(&patched(base(), [first, second]));
    let sources = &plan.report.sources;
    let counts: Vec<_> = sources
        .iter()
        .map(|s| (s.tensors, s.added, s.overlapping))
        .collect();
    assert_eq!(counts[1..], [(2, 1, 1), (3, 2, 1)]);
    assert_eq!(counts[0].0, 2);
}

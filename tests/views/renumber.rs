//! A base whose files get standard names and stay whole, and what each choice of shards costs to read.

use std::collections::BTreeMap;
use std::path::Path;

use ckptfs::catalog::{Catalog, Opened, Tensor};
use ckptfs::error::Code;
use ckptfs::format;
use ckptfs::layout::{self, ShardCost};
use ckptfs::ops::QuantizeParams;
use ckptfs::recipe::{DEFAULT_SHARD_BYTES, Plan, Shards, ViewRequest};
use proptest::prelude::*;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::compare::assert_view;
use crate::common::oracle::Wanted;
use crate::common::readback::{parse, read_all, read_path};
use crate::common::safetensors_file::serialize;
use crate::common::strategies::any_view;
use crate::common::{Workspace, assert_names, message};

const INDEX: &str = "model.safetensors.index.json";
const LAYER: &str = "model.layers.0.self_attn.o_proj.weight";

fn number(i: usize, of: usize) -> String {
    format!("model-{i:05}-of-{of:05}.safetensors")
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.shards.iter().map(|shard| &*shard.name).collect()
}

/// The source file that each shard is, without its directory; none where the shard is put together.
fn whole(plan: &Plan) -> Vec<Option<&str>> {
    let files = plan.shards.iter().map(|shard| shard.whole_file.as_deref());
    files.map(|file| file?.file_name()?.to_str()).collect()
}

fn renumbered(base: Checkpoint) -> Wanted {
    Wanted {
        shards: Some(Shards::Renumber),
        ..Wanted::new(base)
    }
}

/// Two files as an engine names them, of which the index names the second one first.
fn engine() -> Checkpoint {
    Checkpoint::new()
        .shard("rank_0.safetensors", [bf16("a", &[32]), bf16("c", &[8])])
        .shard("rank_1.safetensors", [bf16("b", &[16])])
        .index_order(["b", "c", "a"])
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    })]

    #[test]
    fn a_renumbered_view_has_the_tensors_of_its_sources_and_the_whole_files_of_its_base(
        wanted in any_view(),
        patched in any::<bool>(),
    ) {
        let mut wanted = Wanted { shards: Some(Shards::Renumber), fp8: None, ..wanted };
        if !patched {
            wanted.extras.clear();
        }
        let workspace = Workspace::new();
        let plan = wanted.write(&workspace).plan().unwrap();
        let files = read_all(&plan);

        // The names count the shards, whichever of them comes first.
        let count = plan.shards.len();
        let mut sorted = names(&plan);
        sorted.sort_unstable();
        let expected: Vec<String> = (1..=count).map(|i| number(i, count)).collect();
        prop_assert_eq!(sorted, expected);

        // The base's files come first, in the order in which its index names them, byte for byte.
        let homes = wanted.base.shards_in_order();
        for (home, shard) in homes.iter().zip(&plan.shards) {
            let is_whole = home.unnamed.is_empty();
            prop_assert_eq!(shard.whole_file.is_some(), is_whole, "{}", home.file);
            if is_whole {
                prop_assert!(files[Path::new(&shard.name)] == serialize(&home.tensors));
            }
        }

        // Every tensor is there once, with the bytes of the first source that has it.
        let mut expected = BTreeMap::new();
        for source in std::iter::once(&wanted.base).chain(&wanted.extras) {
            for (tensor, _) in source.in_order() {
                expected.entry(tensor.name.clone()).or_insert_with(|| tensor.clone());
            }
        }
        let mut map = BTreeMap::new();
        let mut found = BTreeMap::new();
        for shard in &plan.shards {
            for tensor in parse(&files[Path::new(&shard.name)]) {
                map.insert(tensor.name.clone(), shard.name.clone());
                prop_assert!(found.insert(tensor.name.clone(), tensor).is_none());
            }
        }
        prop_assert_eq!(found, expected);

        // The index says where each of them is.
        let index: Value = serde_json::from_slice(&files[Path::new(INDEX)]).unwrap();
        prop_assert_eq!(&index["weight_map"], &serde_json::to_value(map).unwrap());
    }

    #[test]
    fn the_costs_of_a_plan_are_those_of_the_views_that_other_choices_give(wanted in any_view()) {
        let workspace = Workspace::new();
        let request = wanted.write(&workspace);
        let plan = request.plan().unwrap();
        let cost = |plan: &Plan| {
            let whole = || plan.shards.iter().filter(|shard| shard.whole_file.is_some());
            ShardCost {
                shards: plan.shards.len(),
                whole_files: whole().count(),
                bytes_in_whole_files: whole().flat_map(|shard| &shard.tensors).map(|t| t.len).sum(),
            }
        };
        prop_assert_eq!(plan.costs.view, cost(&plan));
        for (shards, found) in plan.costs.choices() {
            // A single file has no shard size, and all others have the default then.
            let other = ViewRequest { shards: Some(shards), ..request.clone() };
            prop_assert_eq!(found, Some(cost(&other.plan().unwrap())), "{:?}", shards);
        }
    }
}

#[test]
fn files_of_any_name_get_standard_names_in_the_order_of_the_index() {
    let plan = assert_view(&renumbered(engine()));
    assert_eq!(names(&plan), [number(1, 2), number(2, 2)]);
    assert_eq!(
        whole(&plan),
        ["rank_1.safetensors", "rank_0.safetensors"].map(Some)
    );
    let unindexed = Checkpoint {
        shards: engine().shards,
        ..engine().without_index()
    };
    let plan = assert_view(&renumbered(unindexed));
    assert_eq!(
        whole(&plan),
        ["rank_0.safetensors", "rank_1.safetensors"].map(Some)
    );
}

#[test]
fn without_the_setting_the_same_base_is_repacked() {
    let plan = assert_view(&Wanted::new(engine()));
    assert_eq!(
        (plan.costs.chosen, whole(&plan)),
        (Shards::Repack, vec![None])
    );
}

#[test]
fn a_single_file_becomes_the_one_numbered_shard_with_an_index() {
    for file in ["model.safetensors", "weights.safetensors"] {
        let base = Checkpoint::new().shard(file, [bf16("a", &[32])]);
        let plan = assert_view(&renumbered(base.without_index()));
        assert_eq!(
            (names(&plan), whole(&plan)),
            (vec![&*number(1, 1)], vec![Some(file)])
        );
        assert!(read_path(&plan, INDEX).is_some());
    }
}

#[test]
fn files_that_have_all_numbers_keep_them_whichever_the_index_names_first() {
    let base = Checkpoint::new()
        .shard(&number(1, 2), [bf16("a", &[32])])
        .shard(&number(2, 2), [bf16("b", &[32])])
        .index_order(["b", "a"]);
    let plan = assert_view(&renumbered(base));
    assert_eq!(names(&plan), [number(2, 2), number(1, 2)]);
    assert_eq!(whole(&plan), [&*number(2, 2), &number(1, 2)].map(Some));
}

#[test]
fn standard_names_whose_numbers_do_not_fit_are_numbered_anew() {
    let base = Checkpoint::new()
        .shard(&number(7, 9), [bf16("a", &[32])])
        .shard(&number(1, 2), [bf16("b", &[32])]);
    let plan = assert_view(&renumbered(base));
    assert_eq!(names(&plan), [number(1, 2), number(2, 2)]);
    assert_eq!(whole(&plan), [&*number(7, 9), &number(1, 2)].map(Some));
}

#[test]
fn a_file_of_which_no_tensor_is_left_has_no_number_and_one_that_lost_some_is_put_together() {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard("x0.safetensors", [bf16("a", &[32])])
        .shard("x1.safetensors", [bf16("b", &[32])])
        .shard("x2.safetensors", [bf16("c", &[32]), bf16("d", &[32])]);
    let mut request = ViewRequest::new(workspace.write("base", &base));
    request.shards = Some(Shards::Renumber);
    let mut dropping = |pattern: &str| {
        request.operations.filter.drop = vec![pattern.to_owned()];
        request.plan().unwrap()
    };
    let plan = dropping("b");
    assert_eq!(names(&plan), [number(1, 2), number(2, 2)]);
    assert_eq!(whole(&plan), ["x0.safetensors", "x2.safetensors"].map(Some));
    let plan = dropping("[bd]");
    assert_eq!(whole(&plan), [Some("x0.safetensors"), None]);
    // The same of names that had all numbers before one of them went.
    let base = Checkpoint::new()
        .shard(&number(1, 2), [bf16("a", &[32])])
        .shard(&number(2, 2), [bf16("b", &[32])]);
    request.base = workspace.write("numbered", &base).into();
    request.operations.filter.drop = vec!["a".to_owned()];
    let plan = request.plan().unwrap();
    assert_eq!(
        (names(&plan), whole(&plan)),
        (vec![&*number(1, 1)], vec![Some(&*number(2, 2))])
    );
}

#[test]
fn a_quantized_view_keeps_the_partition_and_the_files_in_which_nothing_is_quantized() {
    let base = Checkpoint::new()
        .shard(
            "rank_0.safetensors",
            [bf16("a", &[32]), bf16(LAYER, &[130, 128])],
        )
        .shard("rank_1.safetensors", [bf16("b", &[16])]);
    let plan = assert_view(&renumbered(base).fp8_by_rules(QuantizeParams::default()));
    assert_eq!(names(&plan), [number(1, 2), number(2, 2)]);
    assert_eq!(whole(&plan), [None, Some("rank_1.safetensors")]);
    assert_eq!(plan.shards[0].tensors.len(), 3);
}

#[test]
fn what_extras_add_is_numbered_behind_the_base_also_where_files_are_called_alike() {
    let extra = |name: &str| Checkpoint::new().shard("rank_0.safetensors", [bf16(name, &[64])]);
    let wanted = Wanted {
        extras: vec![extra("z"), extra("y")],
        shard_bytes: 128,
        ..renumbered(engine())
    };
    let plan = assert_view(&wanted);
    let numbers: Vec<String> = (1..=4).map(|i| number(i, 4)).collect();
    assert_eq!(names(&plan), numbers);
    let files = plan
        .shards
        .iter()
        .map(|shard| shard.whole_file.as_ref().unwrap());
    let ends: Vec<bool> = files
        .zip([
            "base/rank_1",
            "base/rank_0",
            "extra-0/rank_0",
            "extra-1/rank_0",
        ])
        .map(|(file, end)| file.ends_with(format!("{end}.safetensors")))
        .collect();
    assert_eq!(ends, [true; 4]);
}

#[test]
fn files_in_folders_of_a_base_are_as_wrong_as_ever() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &engine());
    let index = r#"{"weight_map": {"a": "0/model.safetensors", "b": "1/model.safetensors"}}"#;
    std::fs::write(base.join(INDEX), index).unwrap();
    let request = ViewRequest {
        shards: Some(Shards::Renumber),
        ..ViewRequest::new(base)
    };
    let error = request.plan().unwrap_err();
    assert_eq!(error.code(), Code::BadIndex);
    assert_names(
        &error.to_string(),
        &["0/model.safetensors", "not a plain file name"],
    );
}

/// A base of as many files, all of them of one tensor each.
fn many(workspace: &Workspace, count: usize) -> Catalog {
    let base = workspace.write("base", &Checkpoint::single([bf16("t", &[4])]));
    let mut catalog = Catalog::from_base(Opened::stored(format::Checkpoint::open(base).unwrap()));
    let (_, tensor) = catalog.tensors.pop().unwrap();
    catalog.homes = vec![catalog.homes[0].clone(); count];
    for home in 0..count {
        let name = format!("t{home}");
        let home = Some(home);
        catalog.tensors.insert(
            name.as_str().into(),
            Tensor {
                home,
                ..tensor.clone()
            },
        );
    }
    catalog
}

#[test]
fn more_files_than_five_digits_count_are_an_error_that_says_to_repack() {
    let workspace = Workspace::new();
    let renumber = |count| {
        layout::shards(
            many(&workspace, count),
            Shards::Renumber,
            DEFAULT_SHARD_BYTES,
        )
    };
    let plan = renumber(99_999).unwrap();
    assert_eq!(plan.shards[99_998].name, "model-99999-of-99999.safetensors");
    let error = renumber(100_000).unwrap_err();
    assert_eq!(error.code(), Code::ShardLimit);
    let parts = ["100000 shards", "99999", "shards: repack", "fewer shards"];
    assert_names(&error.to_string(), &parts);
    // It is no choice where it is impossible.
    let packed = layout::shards(
        many(&workspace, 100_000),
        Shards::Repack,
        DEFAULT_SHARD_BYTES,
    );
    let costs = packed.unwrap().costs;
    let shards = costs
        .choices()
        .map(|(_, cost)| cost.map(|cost| cost.shards));
    assert_eq!(shards, [Some(100_000), None, Some(1)]);
    let small = layout::shards(many(&workspace, 100_000), Shards::Repack, 8);
    assert_names(
        &message(small),
        &["100000 shards", "shard_size", "larger shards"],
    );
}

#[test]
fn slices_of_a_merge_have_no_files_to_renumber_and_are_packed() {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard(
            "rank_0.safetensors",
            [bf16("model.layers.0.x.weight", &[8])],
        )
        .shard(
            "rank_1.safetensors",
            [bf16("model.layers.1.x.weight", &[8])],
        );
    workspace.write("a", &base);
    let recipe = workspace.path().join("recipe.yml");
    let text = "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 2]}]\n  - sources: [{model: a, layer_range: [0, 1]}]\nview: {shards: renumber}\n";
    std::fs::write(&recipe, text).unwrap();
    let request = ViewRequest::from_recipe(&recipe, &Default::default()).unwrap();
    assert_eq!(request.shards, Some(Shards::Renumber));
    let plan = request.plan().unwrap();
    assert_eq!((plan.costs.chosen, plan.shards.len()), (Shards::Repack, 1));
}

//! Views of some of the tensors: `--drop` and `--only`.

use std::path::Path;

use ckptfs::ops::{FilterParams, Operations};
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, small, tensor};
use crate::common::readback::{assert_new_shard, read_all, tensors};
use crate::common::{Workspace, assert_names, message};

fn request(base: &Path, only: &[&str], drop: &[&str]) -> ViewRequest {
    let owned = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
    ViewRequest {
        operations: Operations {
            filter: FilterParams {
                only: owned(only),
                drop: owned(drop),
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    }
}

fn plan(checkpoint: &Checkpoint, only: &[&str], drop: &[&str]) -> ckptfs::Result<Plan> {
    let workspace = Workspace::new();
    let base = workspace.write("base", checkpoint);
    request(&base, only, drop).plan()
}

fn names(plan: &Plan) -> Vec<String> {
    tensors(plan).into_keys().collect()
}

#[test]
fn patterns_match_whole_names_and_drop_takes_from_what_only_keeps() {
    let checkpoint = Checkpoint::single(small(["a", "ab", "b", "ba"]));
    for (only, drop, expected) in [
        (&["a"][..], &[][..], &["a"][..]),
        (&["a.*", "b"], &[], &["a", "ab", "b"]),
        (&[], &["a"], &["ab", "b", "ba"]),
        (&[], &["a", "b.*"], &["ab"]),
        (&["a.*|b.*"], &["ab|b"], &["a", "ba"]),
        (&["a|b"], &[], &["a", "b"]),
    ] {
        let plan = plan(&checkpoint, only, drop).unwrap();
        assert_eq!(names(&plan), expected, "{only:?} {drop:?}");
        assert_eq!(plan.report.count("dropped"), 4 - expected.len());
        assert_eq!(plan.report.warnings, [""; 0]);
    }
}

#[test]
fn what_is_kept_keeps_its_bytes_and_shards_with_everything_are_source_files() {
    let workspace = Workspace::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| small([name]).remove(0));
    let checkpoint = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [a.clone(), b])
        .shard("model-00002-of-00002.safetensors", [c.clone()]);
    let base = workspace.write("base", &checkpoint);
    let plan = request(&base, &[], &["b"]).plan().unwrap();
    let shards: Vec<(&str, bool)> = plan
        .shards
        .iter()
        .map(|shard| (shard.name.as_str(), shard.whole_file.is_some()))
        .collect();
    assert_eq!(
        shards,
        [
            ("model-00001-of-00002.safetensors", false),
            ("model-00002-of-00002.safetensors", true)
        ]
    );
    let files = read_all(&plan);
    assert_new_shard(shards[0].0, &files[Path::new(shards[0].0)]);
    let found = tensors(&plan);
    assert_eq!((&found["a"], &found["c"]), (&a, &c));
    assert_eq!(found.len(), 2);
}

#[test]
fn a_shard_that_is_left_empty_is_not_shown_and_the_others_count_anew() {
    let checkpoint = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", small(["a", "b"]))
        .shard("model-00002-of-00002.safetensors", small(["c"]));
    let plan = plan(&checkpoint, &["c"], &[]).unwrap();
    assert_eq!(plan.shards.len(), 1);
    assert_eq!(plan.shards[0].name, "model-00001-of-00001.safetensors");
    assert!(
        plan.shards[0].whole_file.is_some(),
        "it is the second source file"
    );
}

#[test]
fn scales_go_and_stay_with_their_weight() {
    let checkpoint = Checkpoint::single([
        tensor("a.weight", Dtype::F8_E4M3, &[2, 2], 1),
        tensor("a.weight_scale_inv", Dtype::F32, &[1, 1], 1),
        tensor("b.weight", Dtype::F8_E4M3, &[2, 2], 1),
        tensor("b.weight_scale_inv", Dtype::F32, &[1, 1], 1),
        tensor("c", Dtype::F32, &[1, 1], 1),
    ]);
    let pair = |weight: &str| [weight.to_owned(), format!("{weight}_scale_inv")];
    let kept = plan(&checkpoint, &[], &["a.weight", "c"]).unwrap();
    assert_eq!(names(&kept), pair("b.weight"));
    assert_eq!(kept.report.count("dropped"), 3);
    let kept = plan(&checkpoint, &["a.weight"], &[]).unwrap();
    assert_eq!(names(&kept), pair("a.weight"));
    let kept = plan(&checkpoint, &["a.*"], &[]).unwrap();
    assert_eq!(names(&kept), pair("a.weight"));
    // Scales alone are nothing: they stay away with their weight.
    let kept = plan(&checkpoint, &["a.*_scale_inv", "c"], &[]).unwrap();
    assert_eq!(names(&kept), ["c"]);
    let found = message(plan(&checkpoint, &[], &[".*_scale_inv"]));
    assert_names(
        &found,
        &[
            "tensor a.weight_scale_inv",
            "a.weight, which stays",
            "drop:",
        ],
    );
}

#[test]
fn scales_without_a_weight_are_tensors_like_any_other() {
    let checkpoint = Checkpoint::single(small(["a", "b_scale_inv"]));
    let kept = plan(&checkpoint, &[], &["b_scale_inv"]).unwrap();
    assert_eq!(names(&kept), ["a"]);
}

#[test]
fn names_are_those_that_rename_gave() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single(small(["a", "b"])));
    let request = request(&base, &["x", "a"], &[]);
    let request = request.with(|asked| asked.rename.rules.push("^a$=x".to_owned()));
    let plan = request.plan().unwrap();
    assert_eq!(names(&plan), ["x"]);
    assert_names(
        &plan.report.warnings.join("\n"),
        &["only: a: it matches no"],
    );
}

#[test]
fn to_leave_nothing_is_an_error() {
    let checkpoint = Checkpoint::single(small(["a", "b"]));
    for (only, drop) in [(&["x"][..], &[][..]), (&[], &[".*"]), (&["a"], &["a"])] {
        let found = message(plan(&checkpoint, only, drop));
        assert_names(&found, &["the filters leave nothing of the 2 tensors"]);
    }
}

#[test]
fn patterns_that_match_nothing_are_warned_of() {
    let checkpoint = Checkpoint::single(small(["a.b"]));
    let plan = plan(&checkpoint, &["a.*", "x"], &["b"]).unwrap();
    let warnings = plan.report.warnings.join("\n");
    assert_names(
        &warnings,
        &[
            "only: x: it matches no",
            "drop: b: it matches no",
            "mean .*b?",
        ],
    );
    assert_eq!(plan.report.warnings.len(), 2);
}

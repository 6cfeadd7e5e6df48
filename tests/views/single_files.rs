//! Sources that are a single file: its tensors alone, whatever is beside it.

use std::path::PathBuf;

use ckptfs::catalog::Role;
use ckptfs::error::{Code, as_keys};
use ckptfs::provenance::{Counts, Lineage};
use ckptfs::recipe::{Places, Plan, ViewRequest};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::{read_path, tensors};
use crate::common::safetensors_file::serialize;
use crate::common::{Workspace, plan_patch};

const MTP: &str = "mtp.safetensors";

/// A base of two shards and, beside its index, a file that the index does not name. Returns the base
/// and the file.
fn base_with_a_file_beside_it(workspace: &Workspace) -> (PathBuf, PathBuf) {
    let base = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [bf16("a", &[16])])
        .shard("model-00002-of-00002.safetensors", [bf16("b", &[16])])
        .aux(
            MTP,
            serialize([bf16("a", &[4]), bf16("mtp.fc.weight", &[8, 16])].iter()),
        );
    let base = workspace.write("base", &base);
    let file = base.join(MTP);
    (base, file)
}

/// What the plan lists as left out of the base, with what would bring it in.
fn left_out(plan: &Plan) -> Vec<(String, Option<String>)> {
    let left_out = plan.report.sources[0].left_out.iter();
    let spelled = left_out.map(|left_out| {
        let hint = left_out.hint().map(|hint| hint.spelled(as_keys));
        (left_out.what.clone(), hint)
    });
    spelled.collect()
}

#[test]
fn a_file_that_the_index_does_not_name_is_left_out_with_the_setting_that_adds_it() {
    let workspace = Workspace::new();
    let (base, file) = base_with_a_file_beside_it(&workspace);
    let plan = ViewRequest::new(&base).plan().unwrap();
    let what = format!("{MTP}: the index does not name it");
    let hint = format!(
        "use patch: {} to add the tensors that the view lacks",
        file.display()
    );
    assert_eq!(left_out(&plan), [(what, Some(hint))]);
}

#[test]
fn weights_of_another_format_are_left_out_without_advice_to_add_them() {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard("model-00001-of-00001.safetensors", [bf16("a", &[16])])
        .aux(
            "consolidated.safetensors",
            serialize([bf16("wq", &[16])].iter()),
        );
    let plan = ViewRequest::new(workspace.write("base", &base))
        .plan()
        .unwrap();
    let left_out = left_out(&plan);
    assert_eq!(left_out.len(), 1);
    assert_eq!(left_out[0].1, None);
}

#[test]
fn an_extra_that_is_a_file_gives_its_tensors_alone() {
    let workspace = Workspace::new();
    let (base, file) = base_with_a_file_beside_it(&workspace);
    // Beside the file are shards and an index, which are not those of the extra.
    let elsewhere = Checkpoint::new()
        .shard("model-00001-of-00001.safetensors", [bf16("c", &[16])])
        .aux("tokenizer.json", "elsewhere");
    let elsewhere = workspace
        .write("elsewhere", &elsewhere)
        .join("block.safetensors");
    std::fs::copy(&file, &elsewhere).unwrap();

    for file in [file, elsewhere] {
        let plan = plan_patch(&base, &[&file]).unwrap();
        let names: Vec<String> = tensors(&plan).into_keys().collect();
        assert_eq!(names, ["a", "b", "mtp.fc.weight"]);
        assert_eq!(tensors(&plan)["a"], bf16("a", &[16]), "the base wins");
        assert_eq!(
            tensors(&plan)["mtp.fc.weight"],
            bf16("mtp.fc.weight", &[8, 16])
        );
        assert!(read_path(&plan, "tokenizer.json").is_none());

        let source = &plan.report.sources[1];
        assert_eq!((source.role, &source.path), (Role::Extra, &file));
        assert_eq!(
            (source.tensors, source.added, source.overlapping),
            (2, 1, 1)
        );
        let counts = Counts::of_plan(&plan);
        assert_eq!((counts.kept.tensors, counts.added.tensors), (2, 1));
        let added = &plan.shards[2].tensors[0];
        assert_eq!(Lineage::trace(&plan, added).from[0].checkpoint(), file);
    }
}

#[test]
fn a_file_that_is_an_extra_is_not_left_out() {
    let workspace = Workspace::new();
    let (base, file) = base_with_a_file_beside_it(&workspace);
    assert_eq!(left_out(&plan_patch(&base, &[&file]).unwrap()), []);
}

#[test]
fn a_file_of_which_every_tensor_is_added_is_a_shard_as_it_is() {
    let workspace = Workspace::new();
    let (base, file) = base_with_a_file_beside_it(&workspace);
    std::fs::write(&file, serialize([bf16("mtp.fc.weight", &[8, 16])].iter())).unwrap();
    let plan = plan_patch(&base, &[&file]).unwrap();
    assert_eq!(plan.shards[2].whole_file, Some(file));
}

#[test]
fn a_recipe_names_a_file_as_it_names_a_directory() {
    let workspace = Workspace::new();
    let (base, file) = base_with_a_file_beside_it(&workspace);
    let recipe = workspace.path().join("recipe.yml");
    std::fs::write(
        &recipe,
        format!("base: base\nview: {{patch: base/{MTP}}}\n"),
    )
    .unwrap();
    let request = ViewRequest::from_recipe(&recipe, &Places::default()).unwrap();
    assert_eq!(request.operations.patch.extras, [file.clone().into()]);
    assert_eq!(request.base, base.into());
    std::fs::write(&recipe, request.to_recipe().unwrap()).unwrap();
    let again = ViewRequest::from_recipe(&recipe, &Places::default()).unwrap();
    assert_eq!(again.operations.patch.extras, [file.into()]);
}

#[test]
fn no_other_file_is_an_extra_and_no_file_is_a_base() {
    let workspace = Workspace::new();
    let (base, file) = base_with_a_file_beside_it(&workspace);
    let error = plan_patch(&base, &[&base.join("config.json")]).unwrap_err();
    assert_eq!(error.code(), Code::WrongFileKind);
    let error = ViewRequest::new(&file).plan().unwrap_err();
    assert_eq!(error.code(), Code::WrongFileKind);
    let error = plan_patch(&base, &[&base.join("absent.safetensors")]).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

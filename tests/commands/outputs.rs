//! No command writes over what its view is made from, into it, or around it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, text};
use crate::common::{Workspace, assert_names};
use crate::directory::files;

/// Every kind of input: a base, an extra, a reference, and a recipe with a merge. `cache` holds what
/// links in `linked` lead to.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let tensor = bf16("model.layers.0.self_attn.q_proj.weight", &[128, 128]);
    for name in ["base", "extra", "linked", "cache"] {
        workspace.write(name, &Checkpoint::single([tensor.clone()]));
    }
    let scales = bf16(&format!("{}_scale_inv", tensor.name), &[1, 1]);
    workspace.write("reference", &Checkpoint::single([scales]));
    let at = |name: &str| workspace.path().join(name);
    for file in ["config.json", "model.safetensors"] {
        fs::remove_file(at("linked").join(file)).unwrap();
        symlink(format!("../cache/{file}"), at("linked").join(file)).unwrap();
    }
    symlink("base", at("link")).unwrap();
    symlink("base/new.html", at("dangling")).unwrap();
    fs::hard_link(at("base/model.safetensors"), at("hard.safetensors")).unwrap();
    fs::write(
        at("merge.yml"),
        "merge_method: linear\nmodels:\n  - {model: base, parameters: {weight: 1}}\n  - {model: extra, parameters: {weight: 1}}\n",
    )
    .unwrap();
    workspace
}

const VIEW: &str = "--base base --extra extra --reference reference --extra linked";

fn everything(workspace: &Workspace) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = ["base", "extra", "reference", "linked", "cache", "out"];
    let names = names
        .into_iter()
        .filter(|name| workspace.path().join(name).exists());
    let of = |name| {
        let inside = files(&workspace.path().join(name)).into_iter();
        inside.map(move |(path, content)| (PathBuf::from(name).join(path), content))
    };
    names.flat_map(of).collect()
}

#[track_caller]
fn assert_refused(workspace: &Workspace, arguments: &str, parts: &[&str]) {
    let before = everything(workspace);
    let output = ckptfs(workspace, arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{arguments}: {}",
        text(&output.stdout)
    );
    assert_names(text(&output.stderr), parts);
    let after = everything(workspace);
    assert!(before == after, "{arguments} wrote something");
}

#[test]
fn a_file_that_a_view_is_made_from_is_never_replaced() {
    let workspace = workspace();
    for (out, input) in [
        ("base/model.safetensors", "is inside"),
        ("base/config.json", "is inside"),
        ("extra/config.json", "is inside"),
        ("reference/config.json", "is inside"),
        ("link/config.json", "is inside"),
        // Links, and what only they lead to.
        ("linked/config.json", "linked/config.json"),
        ("cache/model.safetensors", "linked/model.safetensors"),
        ("cache/config.json", "linked/config.json"),
        ("hard.safetensors", "base/model.safetensors"),
    ] {
        let parts = [out, input, "which the view is made from; choose another"];
        let report = format!("report {VIEW} --out {out} --overwrite");
        assert_refused(&workspace, &report, &parts);
        let plan = format!("plan {VIEW} --emit-recipe {out} --overwrite");
        assert_refused(&workspace, &plan, &parts);
    }
}

#[test]
fn nothing_new_is_written_into_a_source_either() {
    let workspace = workspace();
    for out in [
        "base/new.html",
        "link/new.html",
        "reference/new.html",
        "dangling",
    ] {
        let inside = [out, "this is inside", "which the view is made from"];
        assert_refused(&workspace, &format!("report {VIEW} --out {out}"), &inside);
        let plan = format!("plan {VIEW} --emit-recipe {out}");
        assert_refused(&workspace, &plan, &inside);
    }
    // What a report compares with is an input too.
    assert_refused(
        &workspace,
        "report --base base --diff extra --out extra/new.html",
        &["extra/new.html", "this is inside"],
    );
}

#[test]
fn a_recipe_is_an_input_too() {
    let workspace = workspace();
    let parts = ["merge.yml", "which the view is made from"];
    for arguments in [
        "report --recipe merge.yml --out merge.yml --overwrite",
        "plan --recipe merge.yml --emit-recipe merge.yml --overwrite",
        "plan --recipe merge.yml --emit-recipe extra/config.json --overwrite",
    ] {
        let parts = [arguments.split(' ').nth(4).unwrap(), parts[1]];
        assert_refused(&workspace, arguments, &parts);
    }
    // A directory that would be replaced with the recipe in it.
    fs::create_dir(workspace.path().join("out")).unwrap();
    fs::write(workspace.path().join("out/view.yml"), "base: ../base\n").unwrap();
    assert_refused(
        &workspace,
        "materialize --recipe out/view.yml --out out --overwrite",
        &["out", "holds", "out/view.yml"],
    );
}

#[test]
fn facts_are_kept_neither_in_an_input_nor_in_what_is_written() {
    let workspace = workspace();
    for (facts, parts) in [
        ("base/facts", ["base/facts", "is inside", "made from"]),
        ("link", ["link", "this is", "made from"]),
        ("out/facts", ["out/facts", "is inside", "written to"]),
    ] {
        let arguments =
            format!("materialize --recipe merge.yml --out out --yes --facts-cache {facts}");
        assert_refused(&workspace, &arguments, &parts);
    }
}

#[test]
fn only_regular_files_are_replaced() {
    let workspace = workspace();
    fs::create_dir(workspace.path().join("directory")).unwrap();
    for out in ["directory", "/dev/null"] {
        let report = format!("report --base base --out {out} --overwrite");
        assert_refused(&workspace, &report, &[out, "not a regular file"]);
    }
}

//! The flags.

use ckptfs::ops::Experts;
use safetensors::Dtype;
use serde_json::Value;

use crate::common::command::ckptfs;
use crate::common::readback::read_all;
use crate::common::{Workspace, assert_names};
use crate::fixture::*;

const LAYER: &str = "model.layers.0.mlp";
const SIZES: Sizes = Sizes {
    experts: 3,
    intermediate: 4,
    hidden: 8,
};

#[test]
fn each_flag_asks_for_its_form() {
    let workspace = Workspace::new();
    let fused = fused_layer(LAYER, Dtype::BF16, SIZES);
    for (name, tensors, experts) in [
        ("--unfuse-experts", fused.clone(), Experts::Unfuse),
        ("--fuse-experts", unfused(LAYER, &fused), Experts::Fuse),
    ] {
        let base = workspace.write(name, &single(&tensors, SIZES.hidden));
        let output = ckptfs(&workspace, &format!("plan --base ./{name} {name} --json"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let planned = plan(&base, experts).unwrap();
        assert_eq!(
            json["shards"],
            serde_json::to_value(&planned.shards).unwrap()
        );
        assert!(
            planned.shards[0].whole_file.is_none(),
            "{name} changes the shard"
        );
    }
}

#[test]
fn materialize_writes_the_new_form_as_the_view_shows_it() {
    let workspace = Workspace::new();
    let fused = fused_layer(LAYER, Dtype::BF16, SIZES);
    for (name, tensors, experts) in [
        ("--unfuse-experts", fused.clone(), Experts::Unfuse),
        ("--fuse-experts", unfused(LAYER, &fused), Experts::Fuse),
    ] {
        let base = workspace.write(name, &single(&tensors, SIZES.hidden));
        for (out, flags, plan) in [
            ("as-it-is", "", plan(&base, experts).unwrap()),
            ("in-fp8", "--fp8", plan_fp8(&base, Some(experts))),
        ] {
            let out = format!("{out}{name}");
            let line = format!("materialize --base ./{name} {name} {flags} --out {out}");
            let output = ckptfs(&workspace, &line);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            for (path, bytes) in read_all(&plan) {
                let written = std::fs::read(workspace.path().join(&out).join(&path)).unwrap();
                assert!(written == bytes, "{out}/{} differs", path.display());
            }
        }
    }
}

#[test]
fn both_flags_at_once_are_wrong_usage() {
    let workspace = Workspace::new();
    let output = ckptfs(&workspace, "plan --base x --unfuse-experts --fuse-experts");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_names(
        &text,
        &["--unfuse-experts", "--fuse-experts", "cannot be used"],
    );
}

#[test]
fn a_flag_takes_a_scope_behind_an_equals_sign_and_leaves_a_mountpoint_alone() {
    let workspace = Workspace::new();
    let mtp = "mtp.layers.0.mlp";
    let main = fused_layer(LAYER, Dtype::BF16, SIZES);
    let tensors = [main, fused_layer(mtp, Dtype::BF16, SIZES)].concat();
    workspace.write("base", &single(&tensors, SIZES.hidden));
    let unfused = |flags: &str| -> Vec<String> {
        let output = ckptfs(&workspace, &format!("plan {flags} --json"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let shards = json["shards"].as_array().unwrap().iter();
        let tensors = shards.flat_map(|shard| shard["tensors"].as_array().unwrap());
        let names = tensors.map(|tensor| tensor["name"].as_str().unwrap().to_owned());
        names
            .filter(|name| name.ends_with("experts.0.up_proj.weight"))
            .collect()
    };
    let [of_main, of_mtp] = [LAYER, mtp].map(|l| format!("{l}.experts.0.up_proj.weight"));
    let scoped = unfused(r"--base base --unfuse-experts=mtp\..*");
    assert_eq!(scoped, [&*of_mtp]);
    // What follows a space is the positional argument: here, the base.
    assert_eq!(unfused("--unfuse-experts base"), [&*of_main, &*of_mtp]);
    let both = r"--base base --unfuse-experts=model\..* --unfuse-experts=mtp\..*";
    assert_eq!(unfused(both), [&*of_main, &*of_mtp]);

    let emitted = ckptfs(
        &workspace,
        r"plan --base base --fuse-experts --unfuse-experts=mtp\..* --emit-recipe",
    );
    let recipe = String::from_utf8(emitted.stdout).unwrap();
    std::fs::write(workspace.path().join("view.yml"), &recipe).unwrap();
    assert_eq!(unfused("--recipe view.yml"), [&*of_mtp], "{recipe}");
}

#[test]
fn a_scope_that_is_no_regular_expression_is_wrong_usage_and_messages_spell_scopes_as_flags() {
    let workspace = Workspace::new();
    let output = ckptfs(&workspace, "plan --base x --unfuse-experts=a(");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_names(&text, &["--unfuse-experts", "unclosed group"]);
    let fused = fused_layer(LAYER, Dtype::BF16, SIZES);
    workspace.write("base", &single(&fused, SIZES.hidden));
    let output = ckptfs(&workspace, "plan --base base --unfuse-experts=mtp.*");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_names(
        &text,
        &["warning[no-effect]: --unfuse-experts=mtp.*: it has no effect"],
    );
}

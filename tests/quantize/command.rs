//! `--quantize` and its other spellings, in flags and recipes.

use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::ckptfs;
use crate::common::{Workspace, assert_names};
use crate::from_fp4::{self, EXPERT, apart};

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let names = ["self_attn.o_proj", "mlp.down_proj"];
    let tensors = names.map(|name| bf16(&format!("model.layers.0.{name}.weight"), &[128, 128]));
    workspace.write("base", &Checkpoint::single(tensors));
    workspace
}

fn stdout(workspace: &Workspace, command: &str) -> String {
    let output = ckptfs(workspace, command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the tensors of a view.
fn names(workspace: &Workspace, flags: &str) -> Vec<String> {
    let plan = stdout(workspace, &format!("plan {flags} --json"));
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let shards = plan["shards"].as_array().unwrap().iter();
    let tensors = shards.flat_map(|shard| shard["tensors"].as_array().unwrap());
    let mut names: Vec<String> = tensors
        .map(|tensor| tensor["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn every_spelling_asks_for_the_same() {
    let workspace = workspace();
    let recipe = |name: &str, view: &str| {
        let text = format!("base: base\nview:\n  {view}\n");
        std::fs::write(workspace.path().join(name), text).unwrap();
        format!("--recipe {name}")
    };
    let fp8 = names(&workspace, "--base base --fp8");
    for same in [
        "--base base --quantize fp8-block".to_owned(),
        "--base base --quantize-rules exact".to_owned(),
        "--base base --fp8-rules exact".to_owned(),
        recipe("old.yml", "fp8: true"),
        recipe("new.yml", "quantize: fp8-block"),
    ] {
        assert_eq!(names(&workspace, &same), fp8, "{same}");
    }
    let only_down = names(
        &workspace,
        "--base base --quantize int4 --quantize-pattern .*down.*",
    );
    assert_eq!(only_down.len(), 4);
    for same in [
        "--base base --quantize INT4 --fp8-pattern .*down.*".to_owned(),
        recipe("map.yml", "quantize: {scheme: int4, patterns: .*down.*}"),
        format!(
            "{} --quantize int4",
            recipe("scheme.yml", "quantize: {patterns: .*down.*}")
        ),
    ] {
        assert_eq!(names(&workspace, &same), only_down, "{same}");
    }
}

#[test]
fn fp8_and_another_scheme_exclude_each_other() {
    let workspace = workspace();
    let output = ckptfs(&workspace, "plan --base base --fp8 --quantize int4");
    assert_eq!(output.status.code(), Some(2));
    assert_names(
        &String::from_utf8_lossy(&output.stderr),
        &["--fp8", "--quantize"],
    );
    let output = ckptfs(&workspace, "plan --base base --quantize int3");
    assert_eq!(output.status.code(), Some(2));
    assert_names(&String::from_utf8_lossy(&output.stderr), &["int3", "int4"]);
    let text = "base: base\nview: {fp8: true, quantize: int4}\n";
    std::fs::write(workspace.path().join("both.yml"), text).unwrap();
    let output = ckptfs(&workspace, "plan --recipe both.yml");
    assert_names(
        &String::from_utf8_lossy(&output.stderr),
        &["both.yml:2", "fp8", "quantize"],
    );
}

#[test]
fn a_view_is_written_verified_inspected_and_compared() {
    let workspace = workspace();
    for scheme in ["fp8-channel", "int8-channel", "int4", "int4:asymmetric"] {
        let out = scheme.replace(':', "-");
        let flags = format!("--base base --quantize {scheme}");
        stdout(&workspace, &format!("materialize {flags} --out {out}"));
        stdout(&workspace, &format!("verify {out}"));
        let figures = stdout(&workspace, &format!("inspect {flags} --json"));
        let figures: Value = serde_json::from_str(&figures).unwrap();
        assert_eq!(figures["total"]["elements"], 2 * 128 * 128, "{scheme}");
        assert!(
            figures["total"]["sqnr_db"].as_f64().unwrap() > 15.0,
            "{scheme}"
        );
        let said = stdout(
            &workspace,
            &format!("plan --base {out} --dtype bf16 --summary"),
        );
        assert!(!said.contains("warning"), "{said}");
    }
}

#[test]
fn numbers_that_fp8_does_not_have_stop_a_copy_unless_rounding_is_allowed() {
    let workspace = Workspace::new();
    from_fp4::base(&workspace, &[(EXPERT, &apart(15))]);
    let view = "--base base --fp8 --quantize-pattern .*experts.*weight";
    let shown = stdout(&workspace, &format!("plan {view}"));
    assert_names(&shown, &["from FP4 to FP8 exactly", EXPERT]);

    let copy = format!("materialize {view} --out out");
    let output = ckptfs(&workspace, &copy);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_names(
        &error,
        &["inexact", EXPERT, "block [1, 1]", "--allow-rounding"],
    );
    assert!(!workspace.path().join("out/model.safetensors").exists());

    stdout(&workspace, &format!("{copy} --allow-rounding --overwrite"));
    stdout(&workspace, "verify out");
    let recipe = "base: base\nview:\n  quantize:\n    patterns: ['.*experts.*weight']\n    allow_rounding: true\n";
    std::fs::write(workspace.path().join("recipe.yml"), recipe).unwrap();
    let shown = stdout(&workspace, "plan --recipe recipe.yml");
    assert!(!shown.contains("exactly"), "{shown}");
}

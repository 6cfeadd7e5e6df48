//! One word for one thing: what is the same has the same name in every command, and other usual names
//! are understood.

use std::fs;

use serde_json::Value;

use crate::common::Workspace;
use crate::common::assert_names;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, stdout, text};

const NAME: &str = "model.layers.0.mlp.up_proj.weight";

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("base", &Checkpoint::single([bf16(NAME, &[128, 128])]));
    fs::write(workspace.path().join("view.yml"), "base: base\n").unwrap();
    workspace
}

fn plan(workspace: &Workspace, arguments: &str) -> Value {
    serde_json::from_str(&stdout(workspace, &format!("plan --json {arguments}"))).unwrap()
}

#[test]
fn the_base_or_a_recipe_may_be_the_first_argument() {
    let workspace = workspace();
    for (first, flag) in [("base", "--base base"), ("view.yml", "--recipe view.yml")] {
        for (command, rest) in [
            ("plan", ""),
            ("plan", "--fp8 --json"),
            ("plan", "--fp8 --scale-fmt float32"),
            ("inspect", "--fp8"),
        ] {
            let named = stdout(&workspace, &format!("{command} {flag} {rest}"));
            assert_eq!(
                stdout(&workspace, &format!("{command} {first} {rest}")),
                named
            );
        }
        for command in ["report", "materialize"] {
            let out = format!("{command}-{first}");
            let output = ckptfs(&workspace, &format!("{command} {first} --out {out}"));
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            assert!(workspace.path().join(out).exists());
        }
        for wrong in [
            format!("plan {first} {flag}"),
            format!("plan {first} {first}"),
        ] {
            assert_eq!(ckptfs(&workspace, &wrong).status.code(), Some(2), "{wrong}");
        }
    }
    let refused = ckptfs(&workspace, "plan base --model x=base");
    assert_names(text(&refused.stderr), &["--model: it is about a recipe"]);
}

#[test]
fn dtypes_have_all_their_usual_names_in_flags_and_recipes() {
    let workspace = workspace();
    let merge = |dtype: &str| {
        format!(
            "merge_method: linear\nmodels: [{{model: base, parameters: {{weight: 1}}}}]\ndtype: {dtype}\n"
        )
    };
    for (names, dtype) in [
        (["bf16", "bfloat16", "BF16", "bfloat16"], "BF16"),
        (["f16", "float16", "fp16", "half"], "F16"),
        (["f32", "float32", "FP32", "float"], "F32"),
    ] {
        for name in names {
            let found = |plan: &Value| plan["shards"][0]["tensors"][0]["dtype"].clone();
            let of_flag = plan(&workspace, &format!("--base base --dtype {name}"));
            assert_eq!(found(&of_flag), dtype, "--dtype {name}");
            let recipe = format!("base: base\nview: {{dtype: {name}}}\n");
            for recipe in [recipe, merge(name), merge(&format!("torch.{name}"))] {
                fs::write(workspace.path().join("view.yml"), &recipe).unwrap();
                let of_recipe = plan(&workspace, "--recipe view.yml");
                assert_eq!(found(&of_recipe), dtype, "{recipe}");
            }
        }
    }
    let refused = ckptfs(&workspace, "plan --base base --dtype int8");
    assert_eq!(refused.status.code(), Some(2));
    assert_names(text(&refused.stderr), &["int8", "bf16, f16, f32"]);
}

#[test]
fn sizes_have_any_usual_unit_in_flags_and_recipes() {
    let workspace = workspace();
    for size in ["5", "5GB", "5GiB", "5gb", "0.5", "512MiB"] {
        for flag in ["--shard-size", "--shard-size-gb"] {
            let flags = format!("--base base --repack {flag} {size}");
            assert_eq!(
                plan(&workspace, &flags)["shards"].as_array().unwrap().len(),
                1
            );
        }
    }
    for (size, emitted) in [("5GB", "5000000000B"), ("5 GiB", "5GiB"), ("5", "5B")] {
        let recipe = format!("base: base\nview: {{repack: true, shard_size: {size}}}\n");
        fs::write(workspace.path().join("view.yml"), recipe).unwrap();
        let recipe = stdout(&workspace, "plan --recipe view.yml --emit-recipe");
        assert_names(&recipe, &[&format!("shard_size: {emitted}\n")]);
    }
}

#[test]
fn what_exists_is_replaced_by_one_word_and_its_old_name() {
    let workspace = workspace();
    for (command, out) in [
        ("report base --out", "page.html"),
        ("plan base --emit-recipe", "emitted.yml"),
        ("materialize base --yes --out", "out"),
    ] {
        let write = |more: &str| ckptfs(&workspace, &format!("{command} {out} {more}"));
        assert!(write("").status.success(), "{command}");
        let refused = write("");
        assert_eq!(refused.status.code(), Some(1), "{command}");
        assert_names(text(&refused.stderr), &[out, "--overwrite"]);
        for word in ["--overwrite", "--force"] {
            let output = write(word);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        let help = stdout(
            &workspace,
            &format!("{} --help", command.split(' ').next().unwrap()),
        );
        assert!(help.contains("--overwrite") && !help.contains("--force"));
    }
}

#[test]
fn more_threads_than_any_machine_has_use_for_are_refused() {
    let workspace = workspace();
    for arguments in [
        "mount base m --threads 100000",
        "materialize base --out out --jobs 100000",
        "verify base --jobs 100000",
        "diff base base --jobs 18446744073709551615",
        "mount base m --threads 0",
    ] {
        let output = ckptfs(&workspace, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert_names(text(&output.stderr), &["a number from 1 to 1024"]);
    }
    let output = ckptfs(&workspace, "verify base --jobs 1024");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_pattern_that_is_wrong_is_reported_as_of_its_own_flag() {
    let workspace = workspace();
    for (flag, other) in [("--drop", "--only"), ("--only", "--drop")] {
        let refused = ckptfs(&workspace, &format!("plan --base base {flag} ("));
        let error = text(&refused.stderr);
        assert_names(error, &[&format!("'{flag} <REGEX>'")]);
        assert!(!error.contains(other), "{error}");
    }
}

#[test]
fn a_number_beyond_all_bounds_in_config_json_is_read_alike_by_plan_and_verify() {
    let workspace = Workspace::new();
    let config = r#"{"hidden_size": 128, "rope_theta": 1e999}"#;
    let base = Checkpoint::single([bf16(NAME, &[128, 128])]).config(config);
    workspace.write("base", &base);
    stdout(&workspace, "plan --base base --fp8");
    let written = ckptfs(&workspace, "materialize --base base --fp8 --yes --out out");
    assert!(written.status.success(), "{}", text(&written.stderr));
    for directory in ["base", "out"] {
        let verified = stdout(&workspace, &format!("verify --quiet {directory}"));
        assert_names(&verified, &["no problems found"]);
        assert!(!verified.contains("warning"), "{verified}");
    }
}

//! Paths that are not what they should be: what is said of them, and where else is looked.

use std::fs;
use std::process::{Command, Output};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, stdout, text};
use crate::common::{Workspace, assert_names};

fn checkpoint() -> Checkpoint {
    Checkpoint::single([bf16("model.layers.0.mlp.up_proj.weight", &[4, 8])])
}

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("models/Qwen3-8B", &checkpoint());
    workspace.write("models/llama", &checkpoint());
    workspace
}

#[track_caller]
fn assert_refused(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let error = text(&output.stderr);
    assert_names(error, parts);
    assert!(!error.contains("os error"), "{error}");
    assert!(!error.contains("attributes"), "{error}");
}

#[test]
fn of_a_directory_that_does_not_exist_it_is_said_what_is_near() {
    let workspace = workspace();
    let near = "did you mean ";
    for arguments in [
        "plan --base models/qwen3-8b",
        "plan models/qwen3-8b",
        "inspect models/qwen3-8b",
        "report models/qwen3-8b --out x.html",
        "materialize models/qwen3-8b --out x",
        "plan --base models/llama --extra models/qwen3-8b",
        "plan --base models/llama --reference models/qwen3-8b",
        "plan --base models/llama --lora models/qwen3-8b:0.5",
        "report --base models/llama --out x.html --diff models/qwen3-8b",
        "diff models/llama models/qwen3-8b",
        "verify models/qwen3-8b",
        "verify --base models/llama --out models/qwen3-8b",
    ] {
        let output = ckptfs(&workspace, arguments);
        let code = if arguments.starts_with("diff") { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{arguments}");
        let error = text(&output.stderr);
        let parts = ["there is no such directory", near, "models/Qwen3-8B?"];
        assert_names(error, &parts);
        assert!(!error.contains("os error"), "{error}");
    }
    assert_refused(
        &ckptfs(&workspace, "plan --base models/zzz"),
        &[
            "models/zzz: there is no such directory",
            "models holds Qwen3-8B, llama",
        ],
    );
    assert_refused(
        &ckptfs(&workspace, "plan --recipe models.yaml"),
        &["models.yaml: there is no such recipe"],
    );
}

#[test]
fn a_model_of_the_hub_is_found_in_its_cache() {
    let workspace = workspace();
    let hub = workspace.path().join("hub");
    let snapshots = "hub/models--org--model/snapshots";
    workspace.write(&format!("{snapshots}/abc"), &checkpoint());
    let refs = hub.join("models--org--model/refs");
    fs::create_dir(&refs).unwrap();
    fs::write(refs.join("main"), "abc").unwrap();
    let run = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.args(arguments.split(' ')).env("HF_HUB_CACHE", &hub);
        command.current_dir(workspace.path()).output().unwrap()
    };
    for arguments in [
        "plan --base org/model",
        "plan org/model",
        "plan org/model@abc",
        "plan models/llama --extra org/model",
    ] {
        let output = run(arguments);
        assert_eq!(text(&output.stderr), "", "{arguments}");
        assert_names(text(&output.stdout), &["models--org--model/snapshots/abc"]);
    }
    assert_refused(
        &run("plan org/other"),
        &[
            "org/other: there is no such directory",
            "models--org--other",
            "in the hub's cache",
        ],
    );
    assert_refused(
        &run("plan org/model@none"),
        &["no snapshot of revision none"],
    );
    // A directory of this name wins.
    workspace.write("org/model", &checkpoint());
    let printed = run("plan org/model");
    assert!(!text(&printed.stdout).contains("models--"));
}

#[test]
fn a_file_where_a_directory_is_wanted_and_the_reverse() {
    let workspace = workspace();
    let shard = "models/llama/model.safetensors";
    for arguments in [
        format!("plan --base {shard}"),
        format!("plan --base models/llama --lora {shard}"),
        format!("plan --base models/llama --reference {shard}"),
        format!("verify {shard}"),
        format!("verify --base models/llama --out {shard}"),
    ] {
        assert_refused(
            &ckptfs(&workspace, &arguments),
            &[
                "model.safetensors: this is a file, and a directory is wanted",
                "models/llama",
            ],
        );
    }
    fs::write(workspace.path().join("view.yml"), "base: models/llama\n").unwrap();
    assert_refused(
        &ckptfs(&workspace, "plan --base view.yml"),
        &["this is a file", "--recipe"],
    );
    assert_refused(
        &ckptfs(&workspace, "plan --recipe models/llama"),
        &["models/llama: this is a directory", "--base"],
    );
}

#[test]
fn a_byte_order_mark_is_named_where_json_forbids_it_and_read_over_in_a_recipe() {
    let workspace = workspace();
    let marked = |text: &str| format!("\u{feff}{text}");
    let config = checkpoint().config(&marked("{}"));
    let base = workspace.write("marked", &config);
    let bom = "byte order mark (BOM)";
    assert_refused(
        &ckptfs(&workspace, "plan --base marked --fp8"),
        &["config.json", bom, "save it as UTF-8 without one"],
    );
    let verified = ckptfs(&workspace, "verify marked");
    assert_names(text(&verified.stdout), &["config.json", bom]);
    let index = r#"{"weight_map": {"model.layers.0.mlp.up_proj.weight": "model.safetensors"}}"#;
    fs::write(base.join("model.safetensors.index.json"), marked(index)).unwrap();
    assert_refused(
        &ckptfs(&workspace, "plan --base marked"),
        &["model.safetensors.index.json", bom],
    );
    let recipe = workspace.path().join("view.yml");
    fs::write(recipe, marked("base: models/llama\n")).unwrap();
    let plan = stdout(&workspace, "plan --recipe view.yml");
    assert_names(&plan, &["models/llama: 1 tensor of"]);
}

//! Edits as flags: their order is that of the command line, and a recipe says the same.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::common::Workspace;
use crate::common::assert_names;
use crate::common::command::text;
use crate::fixture::checkpoint;

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let base = checkpoint("{\"model_type\": \"x\", \"text_config\": {\"n\": 1}}");
    workspace.write("base", &base.aux("README.md", "x"));
    fs::write(workspace.path().join("file"), "f").unwrap();
    workspace
}

/// The standard output, and what went wrong.
fn run(workspace: &Workspace, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    let output = command
        .args(arguments)
        .current_dir(workspace.path())
        .output();
    let output = output.unwrap();
    let of = |bytes: &[u8]| text(bytes).to_owned();
    (of(&output.stdout), of(&output.stderr))
}

/// config.json of the view, and the names beside it.
fn written(workspace: &Workspace, out: &str, flags: &[&str]) -> (String, Vec<String>) {
    let flags = [&["materialize"], flags, &["--out", out]].concat();
    let (_, stderr) = run(workspace, &flags);
    let directory = workspace.path().join(out);
    let names = fs::read_dir(&directory).unwrap_or_else(|_| panic!("{stderr}"));
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    (
        fs::read_to_string(directory.join("config.json")).unwrap(),
        names,
    )
}

const FLAGS: [&str; 16] = [
    "--base",
    "base",
    "--unset",
    "model_type",
    "--set",
    "model_type=\"y\"",
    "--set",
    "text_config.n=2",
    "--promote",
    "text_config",
    "--keep",
    "model_type",
    "--add-file",
    "new/file.txt=file",
    "--drop-file",
    "*.md",
];

#[test]
fn flags_apply_in_their_order_and_their_recipe_says_the_same() {
    let workspace = workspace();
    let (config, names) = written(&workspace, "flags", &FLAGS);
    assert_eq!(config, "{\"n\": 2, \"model_type\": \"y\"}");
    let shard = "model.safetensors";
    assert_eq!(
        names,
        ["config.json", shard, "model.safetensors.index.json", "new"]
    );
    let emit = [&["plan"], &FLAGS[..], &["--emit-recipe", "view.yml"]].concat();
    run(&workspace, &emit);
    let recipe = fs::read_to_string(workspace.path().join("view.yml")).unwrap();
    assert_names(
        &recipe,
        &["  edits:", "- unset: model_type", "      keep: "],
    );
    let again = written(&workspace, "recipe", &["--recipe", "view.yml"]);
    assert_eq!(again, (config, names));
    // The other way around, the key that was set is gone.
    let reversed = [
        "--base",
        "base",
        "--set",
        "model_type=\"y\"",
        "--unset",
        "model_type",
    ];
    let (config, _) = written(&workspace, "reversed", &reversed);
    assert_eq!(config, "{\"text_config\": {\"n\": 1}}");
}

#[test]
fn the_plan_says_what_is_edited() {
    let workspace = workspace();
    let (plan, stderr) = run(&workspace, &[&["plan"], &FLAGS[..]].concat());
    assert_eq!(stderr, "");
    let file = workspace.path().join("file");
    let file = file.display();
    for line in [
        "edit   config.json: model_type removed (it was \"x\")",
        "edit   config.json: model_type new → \"y\"",
        "edit   config.json: text_config.n 1 → 2",
        "edit   config.json: text_config is the top level, with model_type of the old one",
        &format!("edit   new/file.txt: added, from {file}"),
        "edit   README.md: dropped",
    ] {
        assert!(plan.lines().any(|found| found == line), "{line}\n{plan}");
    }
    assert_names(&plan, &["config.json  ", "  edited\n"]);
    let (json, _) = run(&workspace, &[&["plan", "--json"], &FLAGS[..]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["edits"].as_array().unwrap().len(), 6);
    assert_eq!(json["edits"][2]["new"], "2");
    let long = format!("model_type=\"{}\"", "x".repeat(1000));
    let (plan, _) = run(&workspace, &["plan", "base", "--set", &long]);
    let line = plan.lines().find(|line| line.starts_with("edit")).unwrap();
    assert!(line.ends_with('…') && line.len() < 120, "{line}");
}

#[test]
fn a_bare_word_is_refused_with_what_a_shell_takes() {
    let workspace = workspace();
    let (_, stderr) = run(&workspace, &["plan", "base", "--set", "model_type=llama"]);
    assert_names(
        &stderr,
        &["llama is not JSON", r#"--set 'model_type="llama"'"#],
    );
    let shell = format!(
        "{} plan base --set 'model_type=\"llama\"'",
        env!("CARGO_BIN_EXE_ckptfs")
    );
    let mut sh = Command::new("sh");
    let output = sh
        .args(["-c", &shell])
        .current_dir(workspace.path())
        .output();
    assert_names(text(&output.unwrap().stdout), &["\"x\" → \"llama\""]);
    let (_, stderr) = run(&workspace, &["plan", "base", "--keep", "a"]);
    assert_names(&stderr, &["error[conflict]", "--keep a", "--promote"]);
}

#[test]
fn no_output_goes_over_a_file_that_is_added() {
    let workspace = workspace();
    let add = ["plan", "base", "--add-file", "a.txt=file"];
    let over = ["--emit-recipe", "file", "--overwrite"];
    let (_, stderr) = run(&workspace, &[&add[..], &over].concat());
    assert_names(&stderr, &["error[bad-destination]", "file"]);
    assert_eq!(fs::read(workspace.path().join("file")).unwrap(), b"f");
}

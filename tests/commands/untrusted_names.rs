//! Names of files, directories and tensors come from whoever made a checkpoint: what the program prints
//! never has a terminal obey them, and none of them can pass for a line of its own.

use std::fs;
use std::process::Output;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, text};

/// Clears the screen, rings, turns text around, and forges a line.
const HOSTILE: &str = "a\u{1b}[2J\u{7}\u{202e}\u{9b}1m\rb\nFORGED: no problems found\n";

#[track_caller]
fn assert_harmless(what: &str, output: &Output) -> String {
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let obeyed = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
    assert!(!printed.contains(obeyed), "{what}: {printed:?}");
    let is_forged = |line: &str| line.starts_with("FORGED");
    assert!(!printed.lines().any(is_forged), "{what}: {printed}");
    printed
}

/// A checkpoint of hostile names: of a shard, a tensor, a file, and a directory with a file in it. All
/// of it is in a directory of such a name, `link` leads to it.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let hostile = HOSTILE.replace('/', "");
    let shard = format!("{hostile}.safetensors");
    let checkpoint = Checkpoint::new()
        .shard(
            &shard,
            [bf16(&format!("{hostile}.q_proj.weight"), &[128, 128])],
        )
        .unnamed([bf16(&format!("{hostile}.unnamed"), &[2])])
        .aux(&format!("{hostile}.txt"), "text")
        .aux(&format!("{hostile}/{hostile}"), "text");
    let base = workspace.write(&format!("base{hostile}"), &checkpoint);
    let at = |name: &str| workspace.path().join(name);
    std::os::unix::fs::symlink("nowhere", base.join(format!("{hostile}.link"))).unwrap();
    std::os::unix::fs::symlink(&base, at("link")).unwrap();
    let recipe = serde_json::json!({"base": base, "view": {"fp8": true}});
    fs::write(at("recipe.yml"), recipe.to_string()).unwrap();
    workspace.write("other", &Checkpoint::single([bf16("w", &[4, 4])]));
    workspace
}

#[test]
fn no_command_prints_what_a_terminal_would_obey() {
    let workspace = workspace();
    for arguments in [
        "plan --base link",
        "plan --recipe recipe.yml",
        "plan --recipe recipe.yml --json --provenance",
        "plan --recipe recipe.yml --emit-recipe",
        "plan --recipe recipe.yml --check-values",
        "plan --base link --drop .* --only none",
        "plan --base other --extra link",
        "plan --base other --reference link",
        "inspect --recipe recipe.yml --tensors",
        "diff link other",
        "diff other link --json",
        "verify link",
        "verify --base link --out other",
        "report --recipe recipe.yml --out report.html",
        "materialize --recipe recipe.yml --out out --yes",
        "verify out",
        "materialize --base link --out other",
        "materialize --base other --out link --weights-only",
    ] {
        let output = ckptfs(&workspace, arguments);
        let printed = assert_harmless(arguments, &output);
        assert!(!printed.is_empty(), "{arguments}");
    }
    let plan = assert_harmless("plan", &ckptfs(&workspace, "plan --base link"));
    assert!(
        plan.contains(r"a\u001b[2J\u0007\u202e\u009b1m\rb\nFORGED"),
        "{plan}"
    );
}

#[test]
fn json_and_recipes_have_the_names_as_they_are() {
    let workspace = workspace();
    let printed = ckptfs(&workspace, "plan --recipe recipe.yml --json");
    let plan: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let name = plan["shards"][0]["tensors"][0]["name"].as_str().unwrap();
    assert_eq!(name, format!("{}.q_proj.weight", HOSTILE));
    let recipe = ckptfs(&workspace, "plan --recipe recipe.yml --emit-recipe");
    fs::write(workspace.path().join("again.yml"), &recipe.stdout).unwrap();
    let again = ckptfs(&workspace, "plan --recipe again.yml --json");
    assert_eq!(text(&again.stdout), text(&printed.stdout));
}

#[test]
fn errors_about_such_names_are_harmless_too() {
    for (file, content) in [
        (
            "model.safetensors.index.json",
            serde_json::json!({"weight_map": {"w": HOSTILE.replace('/', "")}}).to_string(),
        ),
        (
            "model.safetensors.index.json",
            serde_json::json!({"weight_map": {HOSTILE: "../x"}}).to_string(),
        ),
    ] {
        let workspace = Workspace::new();
        let base = workspace.write("base", &Checkpoint::single([bf16("w", &[2, 2])]));
        fs::write(base.join(file), content).unwrap();
        for arguments in ["plan --base base", "verify base"] {
            let output = ckptfs(&workspace, arguments);
            assert_eq!(output.status.code(), Some(1), "{arguments}");
            let printed = assert_harmless(arguments, &output);
            assert!(printed.contains(r"\u001b[2J"), "{printed}");
        }
    }
}

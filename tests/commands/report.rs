//! `ckptfs report` as a command: what it writes, and over what it does not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{ckptfs, text};
use crate::common::{Workspace, assert_names};

const HOSTILE: &str = "</script><script>alert(1)</script><!--";

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let q_proj = bf16("model.layers.0.self_attn.q_proj.weight", &[128, 128]);
    workspace.write("base", &Checkpoint::single([q_proj, bf16(HOSTILE, &[3])]));
    workspace
}

#[test]
fn the_page_is_one_file_that_is_the_same_each_time() {
    let workspace = workspace();
    let page = |name: &str| {
        let flags = format!("report --base base --fp8 --errors --diff base --out {name}");
        let output = ckptfs(&workspace, &flags);
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::read_to_string(workspace.path().join(name)).unwrap()
    };
    let first = page("one.html");
    assert_eq!(first, page("two.html"));
    assert_eq!(first.matches("<script").count(), 2);
    assert_eq!(first.matches("</script>").count(), 2);
    // Pictures have a name that looks like an address, and nothing else does.
    assert_eq!(
        first.matches("http").count(),
        1 + first.matches("http-equiv").count()
    );
    assert_names(&first, &["default-src 'none'", r"\u003c/script\u003e"]);
    let mode = fs::metadata(workspace.path().join("one.html")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o600, 0o600);
}

#[test]
fn the_page_has_the_recipe_of_the_view() {
    let workspace = workspace();
    let recipe = ckptfs(&workspace, "plan --base base --fp8 --emit-recipe");
    let recipe = text(&recipe.stdout).split_once('\n').unwrap().1.to_owned();
    assert_names(&recipe, &["base: ", "quantize:"]);
    let output = ckptfs(&workspace, "report --base base --fp8 --out page.html");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = fs::read_to_string(workspace.path().join("page.html")).unwrap();
    let as_json = serde_json::to_string(&recipe).unwrap();
    assert_names(&page, &[&format!("\"recipe\":{as_json}")]);
}

#[test]
fn what_exists_is_written_over_only_if_asked_and_nothing_else_is_left() {
    let workspace = workspace();
    let at = |name: &str| workspace.path().join(name);
    fs::write(at("page.html"), "mine").unwrap();
    symlink("nowhere", at("link.html")).unwrap();
    for name in ["page.html", "link.html"] {
        let output = ckptfs(&workspace, &format!("report --base base --out {name}"));
        assert_eq!(output.status.code(), Some(1));
        assert_names(text(&output.stderr), &[name, "--overwrite"]);
    }
    assert_eq!(fs::read_to_string(at("page.html")).unwrap(), "mine");
    let output = ckptfs(&workspace, "report --base base --out no/such/page.html");
    assert_eq!(output.status.code(), Some(1));
    assert_names(text(&output.stderr), &["no/such/page.html", "cannot write"]);
    let output = ckptfs(&workspace, "report --base base --out page.html --force");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        fs::read_to_string(at("page.html"))
            .unwrap()
            .starts_with("<!doctype html>")
    );
    let entries = fs::read_dir(workspace.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["base", "link.html", "page.html"]);
}

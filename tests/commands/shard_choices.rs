//! `--shards` on the command line: what it gives, what excludes it, and what `plan` says of the choices.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::command::{self, ckptfs, text};
use crate::common::{Workspace, assert_names};
use crate::plan::{ckptfs_plan, stdout};

/// Two files as an engine names them, of 2 KiB and 1 KiB of tensors, and an extra of 1 KiB.
fn engine() -> Workspace {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard("rank_0.safetensors", [bf16("a", &[512]), bf16("b", &[512])])
        .shard("rank_1.safetensors", [bf16("c", &[512])]);
    workspace.write("base", &base);
    workspace.write("extra", &Checkpoint::single([bf16("z", &[512])]));
    workspace
}

fn plan_json(workspace: &Workspace, flags: &str) -> Value {
    serde_json::from_str(&stdout(workspace, &format!("{flags} --json"))).unwrap()
}

/// The names of the shards, and whether each is a whole file.
fn shards(workspace: &Workspace, flags: &str) -> Vec<(String, bool)> {
    let json = plan_json(workspace, flags);
    let shards = json["shards"].as_array().unwrap().iter();
    let shown = |shard: &Value| {
        let name = shard["name"].as_str().unwrap();
        let name = name.strip_suffix(".safetensors").unwrap();
        (name.to_owned(), !shard["whole_file"].is_null())
    };
    shards.map(shown).collect()
}

#[test]
fn each_value_gives_its_shards_and_the_older_flags_say_the_same() {
    let workspace = engine();
    let expect = |flags: &str, expected: &[(&str, bool)]| {
        let expected: Vec<(String, bool)> = expected
            .iter()
            .map(|(name, whole)| ((*name).to_owned(), *whole))
            .collect();
        assert_eq!(
            shards(&workspace, &format!("--base base {flags}")),
            expected,
            "{flags}"
        );
    };
    let two = [
        ("model-00001-of-00002", true),
        ("model-00002-of-00002", true),
    ];
    expect("--shards renumber", &two);
    expect("--shards RENUMBER", &two);
    for keep in ["--shards keep", "--no-repack"] {
        expect(keep, &[("rank_0", true), ("rank_1", true)]);
    }
    for repack in ["", "--shards repack", "--repack"] {
        expect(repack, &[("model-00001-of-00001", false)]);
    }
    for single in ["--shards single", "--single-file"] {
        expect(single, &[("model", false)]);
    }
    let three = |i| format!("model-0000{i}-of-00003");
    let (one, two, three) = (three(1), three(2), three(3));
    let all = [(&*one, true), (&*two, true), (&*three, true)];
    expect("--extra extra --shards renumber", &all);
    // The name of a tensor is in the header of its file, which so is a new one; its neighbours are not.
    let renamed = [
        ("model-00001-of-00002", true),
        ("model-00002-of-00002", false),
    ];
    expect("--shards renumber --rename c=d", &renamed);
}

#[test]
fn two_spellings_exclude_each_other() {
    let workspace = engine();
    for other in ["--repack", "--no-repack", "--single-file", "--shards keep"] {
        let output = ckptfs_plan(
            &workspace,
            &format!("--base base --shards renumber {other}"),
        );
        assert_eq!(output.status.code(), Some(2), "{other}");
        let flag = other.split(' ').next().unwrap();
        assert_names(text(&output.stderr), &["cannot be used", "--shards", flag]);
    }
    let output = ckptfs_plan(&workspace, "--base base --shards rename");
    assert_eq!(output.status.code(), Some(2));
    assert_names(text(&output.stderr), &["keep, renumber, repack, single"]);
    let output = ckptfs_plan(&workspace, "--base base --shards single --shard-size 1GiB");
    assert_eq!(output.status.code(), Some(1));
    assert_names(
        text(&output.stderr),
        &["error[conflict]", "--shards", "--shard-size"],
    );
}

#[test]
fn every_command_on_a_view_takes_it() {
    let workspace = engine();
    let run = |command: &str| {
        let output = ckptfs(&workspace, &format!("{command} --shards renumber"));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    };
    run("materialize --yes --base base --out out");
    let read = |path: &str| std::fs::read(workspace.path().join(path)).unwrap();
    for (i, file) in ["rank_0", "rank_1"].into_iter().enumerate() {
        let numbered = format!("out/model-0000{}-of-00002.safetensors", i + 1);
        assert!(read(&numbered) == read(&format!("base/{file}.safetensors")));
    }
    run("verify --base base --out out");
    assert_names(&command::stdout(&workspace, "verify out"), &["in 2 shards"]);
    run("materialize --yes --base base --out linked --hardlink");
    let inode = |path: &str| workspace.path().join(path).metadata().unwrap().ino();
    let linked = inode("linked/model-00002-of-00002.safetensors");
    assert_eq!(linked, inode("base/rank_1.safetensors"));
    run("inspect --base base");
    run("report --base base --out page.html");
    let output = ckptfs(&workspace, "verify --base base --shards keep --out out");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_plan_says_which_choices_would_leave_more_whole() {
    let workspace = engine();
    let line = |flags: &str| {
        let plan = stdout(&workspace, &format!("--base base {flags}"));
        let summary = stdout(&workspace, &format!("--base base {flags} --summary"));
        let line = |text: &str| {
            let mut lines = text.lines().filter(|line| line.starts_with("shards "));
            lines.next().map(str::to_owned)
        };
        assert_eq!(line(&plan), line(&summary), "{flags}");
        line(&plan)
    };
    let is = |flags: &str, expected: &str| {
        assert_eq!(line(flags).as_deref(), Some(expected), "{flags}");
    };
    let none = "no byte of 3.00 KiB is in a whole source file";
    let kept = "--shards keep or renumber: all of it";
    is("", &format!("shards repack: {none}; {kept}"));
    is("--single-file", &format!("shards single: {none}; {kept}"));
    for best in ["--no-repack", "--shards renumber"] {
        assert_eq!(line(best), None, "{best}");
    }
    // Packed at 3 KiB, the base is one shard and the extra another, which is its file.
    is(
        "--extra extra --shards repack --shard-size 3KiB",
        "shards repack: 1.00 KiB of 4.00 KiB is in whole source files; --shards keep or renumber: all of it",
    );
    // At 2 KiB, the packed shards are the files.
    assert_eq!(line("--shards repack --shard-size 2KiB"), None);
    // Nothing is whole where everything is computed.
    assert_eq!(line("--dtype f32"), None);
}

#[test]
fn the_json_has_the_same_as_numbers_for_all_three_choices() {
    let workspace = engine();
    let choices = |flags: &str| {
        plan_json(&workspace, &format!("--base base {flags}"))["shard_choices"].clone()
    };
    let cost = |shards: usize, whole_files: usize, bytes: u64| json!({"shards": shards, "whole_files": whole_files, "bytes_in_whole_files": bytes});
    let (kept, packed) = (cost(2, 2, 3072), cost(1, 0, 0));
    let expected = |chosen: &str, view: &Value| json!({"chosen": chosen, "view": view, "keep": kept, "renumber": kept, "repack": packed});
    assert_eq!(choices(""), expected("repack", &packed));
    assert_eq!(choices("--shards keep"), expected("keep", &kept));
    assert_eq!(choices("--shards renumber"), expected("renumber", &kept));
    assert_eq!(choices("--single-file"), expected("single", &packed));
}

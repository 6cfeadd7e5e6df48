//! Files that are added, replaced and left out.

use std::collections::BTreeSet;
use std::fs;

use ckptfs::catalog::FileChange;
use ckptfs::error::Code;
use ckptfs::recipe::ViewRequest;

use crate::common::checkpoint::Checkpoint;
use crate::common::readback::read_all;
use crate::common::{Workspace, assert_names};
use crate::fixture::{ask, checkpoint, request, text};

fn base() -> Checkpoint {
    checkpoint("{\"a\": 1}")
        .aux("README.md", "read")
        .aux("tokenizer.json", "{}")
        .aux("original/params.json", "{\"dim\": 1}")
        .aux("original/README.md", "me")
}

/// The paths of the files of a view with `edits`, with the index left out.
fn files(edits: &[(&str, &str)]) -> BTreeSet<String> {
    let workspace = Workspace::new();
    let plan = request(workspace.write("base", &base()), edits)
        .plan()
        .unwrap();
    assert_eq!(plan.report.warnings, [""; 0]);
    let files = read_all(&plan).into_keys();
    let files = files.map(|path| path.to_str().unwrap().to_owned());
    files.filter(|path| !path.contains("safetensors")).collect()
}

#[test]
fn what_a_glob_matches_is_left_out_and_shards_never_are() {
    let all = [
        "README.md",
        "config.json",
        "original/README.md",
        "original/params.json",
        "tokenizer.json",
    ];
    for (edits, left) in [
        (vec![("drop_file", "*.md")], &all[1..]),
        (
            vec![("drop_file", "**/*.md")],
            &["config.json", "original/params.json", "tokenizer.json"],
        ),
        (
            vec![("drop_file", "original")],
            &["README.md", "config.json", "tokenizer.json"],
        ),
        (
            vec![("drop_file", "original/p*")],
            &[
                "README.md",
                "config.json",
                "original/README.md",
                "tokenizer.json",
            ],
        ),
        (vec![("drop_file", "*")], &[]),
        (
            vec![("drop_file", "[!c]*"), ("drop_file", "x"), ("set", "a=2")][..1].to_vec(),
            &["config.json"],
        ),
    ] {
        let expected: BTreeSet<String> = left.iter().map(|&path| path.to_owned()).collect();
        assert_eq!(files(&edits), expected, "{edits:?}");
    }
}

#[test]
fn a_glob_that_matches_no_file_beside_the_weights_is_warned_of() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    for (glob, words) in [
        ("READM.md", "did you mean README.md?"),
        ("*.safetensors", "no file beside the weights"),
    ] {
        let plan = request(&directory, &[("drop_file", glob)]).plan().unwrap();
        assert_eq!(plan.report.warnings[0].code(), Code::NoMatch);
        assert_names(plan.report.warnings[0].text(), &[glob, words]);
        assert!(plan.report.edits.is_empty());
    }
    let error = ask(&mut ViewRequest::new("/a"), &[("drop_file", "[a")]).unwrap_err();
    assert_eq!(error.code(), Code::BadPattern);
}

#[test]
fn a_file_is_added_or_takes_the_place_of_the_base_s_as_it_is() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let file = workspace.path().join("new file=1");
    fs::write(&file, "{\"b\":  2}").unwrap();
    for (name, is_new) in [
        ("chat_template.jinja", true),
        ("README.md", false),
        ("config.json", false),
        ("original/params.json", false),
        ("original/x", true),
        ("made/for/it.txt", true),
    ] {
        let edit = format!("{name}={}", file.display());
        let request = request(&directory, &[("add_file", &edit)]);
        let plan = request.plan().unwrap();
        let mut files = read_all(&plan);
        assert_eq!(files[std::path::Path::new(name)], b"{\"b\":  2}");
        let from = file.clone();
        let change = match is_new {
            true => FileChange::Added { from },
            false => FileChange::Replaced { from },
        };
        assert_eq!(plan.report.edits[0].change, change);
        assert!(plan.shards.iter().all(|shard| shard.whole_file.is_some()));
        assert!(request.inputs().contains(&file), "no output may touch it");
        // All else is as it was.
        let mut before = read_all(&ViewRequest::new(&directory).plan().unwrap());
        for files in [&mut files, &mut before] {
            files.remove(std::path::Path::new(name));
        }
        assert_eq!(files, before, "{name}");
    }
}

#[test]
fn a_file_that_was_added_can_be_edited_and_stays_as_it_was_on_disk() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let file = workspace.path().join("new");
    fs::write(&file, "{\"b\":  2}").unwrap();
    let add = format!("config.json={}", file.display());
    let edits = [("add_file", add.as_str()), ("set", "b=3")];
    let plan = request(&directory, &edits).plan().unwrap();
    assert_eq!(text(&plan, "config.json"), "{\"b\":  3}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{\"b\":  2}");
    let replaced = request(&directory, &[("set", "a=9"), ("add_file", &add)])
        .plan()
        .unwrap();
    assert_eq!(text(&replaced, "config.json"), "{\"b\":  2}");
}

#[test]
fn a_name_that_is_of_weights_or_leads_out_is_refused() {
    for name in [
        "model.safetensors",
        "x.safetensors",
        "model.safetensors.index.json",
        "../x",
        "a/../../x",
        "/x",
        "a//b",
        "a/",
        ".",
        ".git",
        ".ckptfs/x",
        "SHA256SUMS",
        "x.ckptfs-partial",
    ] {
        let edit = format!("{name}=/etc/hostname");
        let refused = ask(&mut ViewRequest::new("/a"), &[("add_file", &edit)]);
        let error = refused.expect_err(name);
        assert_eq!(error.code(), Code::BadValue, "{error}");
        assert_names(&error.to_string(), &["edits.add_file", name]);
    }
}

#[test]
fn a_file_that_cannot_be_added_is_an_error_that_names_it() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    fs::write(workspace.path().join("template.jinja"), "").unwrap();
    let here = workspace.path().display().to_string();
    for (edit, code, words) in [
        (
            format!("a={here}/templat.jinja"),
            Code::NotFound,
            "did you mean",
        ),
        (format!("a={here}/base"), Code::WrongFileKind, "base"),
        (
            format!("original={here}/template.jinja"),
            Code::WrongFileKind,
            "is a directory",
        ),
        (
            format!("README.md/a={here}/template.jinja"),
            Code::WrongFileKind,
            "no directory",
        ),
        (
            "a=ftp://host/x".to_owned(),
            Code::UnsupportedPlace,
            "ftp://host",
        ),
    ] {
        let error = request(&directory, &[("add_file", &edit)])
            .plan()
            .unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_names(&error.to_string(), &["edits.add_file", words]);
    }
}

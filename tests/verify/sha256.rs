//! `SHA256SUMS`: what `materialize --sha256` writes, and what `verify` makes of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ckptfs::materialize::{Options, materialize};
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::verify::{ManifestReport, manifest};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::{Workspace, assert_names, message, plan_by_rules};
use crate::directory::{files, flip_byte};

const MANIFEST: &str = "SHA256SUMS";
pub(crate) const FIRST: &str = "model-00001-of-00002.safetensors";

/// Scales of odd numbers, which lie behind all codes; names that have to be escaped; an empty file.
fn base() -> Checkpoint {
    Checkpoint::new()
        .shard(
            FIRST,
            [
                bf16("model.layers.0.self_attn.o_proj.weight", &[1200, 700]),
                bf16("model.layers.0.mlp.down_proj.weight", &[300, 256]),
                bf16("model.layers.0.input_layernorm.weight", &[255]),
            ],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [bf16("lm_head.weight", &[32, 256])],
        )
        .aux("deep/er/a b.txt", "some text")
        .aux("new\nline\\", "odd")
        .aux("empty", "")
}

pub(crate) struct Written {
    workspace: Workspace,
    base: PathBuf,
    plan: Plan,
    pub(crate) out: PathBuf,
}

pub(crate) fn written(fp8: bool, hardlink: bool, jobs: usize) -> Written {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let plan = if fp8 {
        plan_by_rules(&base).unwrap()
    } else {
        ViewRequest::new(&base).plan().unwrap()
    };
    let out = workspace.path().join("out");
    let options = Options {
        sha256: true,
        hardlink,
        jobs,
        ..Options::default()
    };
    materialize(&plan, std::slice::from_ref(&base), &out, &options, &()).unwrap();
    Written {
        workspace,
        base,
        plan,
        out,
    }
}

/// The exit code and what it prints of `sha256sum --check --strict` in `directory`.
fn sha256sum(directory: &Path) -> (Option<i32>, String) {
    let mut command = Command::new("sha256sum");
    command
        .args(["--check", "--strict", MANIFEST])
        .current_dir(directory);
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn verify(directory: &Path) -> ManifestReport {
    manifest(directory, 2, &()).unwrap().unwrap()
}

#[test]
fn sha256sum_finds_every_file_as_it_is_named() {
    for (fp8, hardlink) in [(false, false), (false, true), (true, false), (true, true)] {
        for jobs in [1, 3] {
            let written = written(fp8, hardlink, jobs);
            let expected = read_all(&written.plan);
            let mut found = files(&written.out);
            assert!(found.remove(Path::new(MANIFEST)).is_some());
            assert!(found == expected, "the bytes differ");
            let (code, text) = sha256sum(&written.out);
            assert_eq!(code, Some(0), "{text}");
            assert_eq!(text.matches(": OK\n").count(), expected.len(), "{text}");
            let report = verify(&written.out);
            assert_eq!(report.files, expected.len());
            assert_eq!(report.problems, [""; 0]);
            assert_eq!(report.warnings, [""; 0]);
            let inodes =
                [&written.out, &written.base].map(|d| d.join(FIRST).metadata().unwrap().ino());
            assert_eq!(inodes[0] == inodes[1], hardlink && !fp8);
        }
    }
}

#[test]
fn the_checksums_of_sha256sum_are_understood() {
    let written = written(true, false, 2);
    fs::remove_file(written.out.join(MANIFEST)).unwrap();
    assert!(manifest(&written.out, 1, &()).unwrap().is_none());
    let script =
        format!("find . -type f -print0 | xargs -0 sha256sum > ../sums && mv ../sums {MANIFEST}");
    let status = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&written.out)
        .status();
    assert!(status.unwrap().success());
    let report = verify(&written.out);
    assert_eq!(
        (report.files, report.problems),
        (read_all(&written.plan).len(), vec![])
    );
}

#[test]
fn what_differs_is_missing_or_extra_is_named() {
    let written = written(true, false, 2);
    flip_byte(&written.out.join(FIRST), 5000);
    fs::remove_file(written.out.join("deep/er/a b.txt")).unwrap();
    fs::remove_file(written.out.join("empty")).unwrap();
    fs::create_dir(written.out.join("empty")).unwrap();
    fs::write(written.out.join("deep/note"), "new").unwrap();
    fs::copy(written.out.join(FIRST), written.out.join("new.safetensors")).unwrap();
    let report = verify(&written.out);
    let problems = report.problems.join("\n");
    assert_eq!(report.problems.len(), 4, "{problems}");
    assert_names(
        &problems,
        &[
            &format!("{FIRST}: its SHA-256 is "),
            "missing: deep/er/a b.txt",
            "empty: cannot read",
            "weights that SHA256SUMS does not name: new.safetensors",
        ],
    );
    assert_eq!(
        report.warnings,
        ["files that SHA256SUMS does not name: deep/note"]
    );
    assert_eq!(sha256sum(&written.out).0, Some(1));
}

#[test]
fn checksums_that_are_none_or_lead_elsewhere_are_refused() {
    let written = written(false, false, 1);
    let hex = "00".repeat(32);
    for text in ["what".to_owned(), format!("{hex}  ../base/config.json\n")] {
        fs::write(written.out.join(MANIFEST), text).unwrap();
        let error = message(manifest(&written.out, 1, &()).map(|_| ()));
        assert_names(&error, &["out/SHA256SUMS", "line 1"]);
    }
}

#[test]
fn the_checksums_of_a_base_are_not_the_views() {
    let written = written(false, false, 1);
    let plan = plan_by_rules(&written.out).unwrap();
    assert!(!read_all(&plan).contains_key(Path::new(MANIFEST)));
    assert_names(&plan.report.sources[0].left_out.concat(), &[MANIFEST]);
    let copy = written.workspace.path().join("copy");
    materialize(
        &plan,
        std::slice::from_ref(&written.out),
        &copy,
        &Options::default(),
        &(),
    )
    .unwrap();
    assert!(manifest(&copy, 1, &()).unwrap().is_none());
}

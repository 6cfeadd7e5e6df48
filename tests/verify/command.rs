//! `ckptfs verify` as a command.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::{Workspace, assert_names};
use crate::directory::flip_byte;
use crate::sha256;

const BINARY: &str = env!("CARGO_BIN_EXE_ckptfs");

/// A base and its FP8 view as `ckptfs materialize` writes it.
struct Written {
    workspace: Workspace,
    base: PathBuf,
    out: PathBuf,
}

impl Written {
    fn new() -> Self {
        let workspace = Workspace::new();
        let tensors = [
            bf16("model.layers.0.self_attn.o_proj.weight", &[256, 256]),
            bf16("model.norm.weight", &[256]),
        ];
        let base = workspace.write("base", &Checkpoint::single(tensors));
        let out = workspace.path().join("out");
        let written = Written {
            workspace,
            base,
            out,
        };
        let (base, out) = (written.base.as_os_str(), written.out.as_os_str());
        let flags = ["materialize", "--fp8", "--base"].map(OsStr::new);
        let (code, ..) = run(flags.into_iter().chain([base, "--out".as_ref(), out]));
        assert_eq!(code, 0);
        written
    }

    /// `ckptfs verify DIR`
    fn structure(&self) -> (i32, String, String) {
        run(["verify".as_ref(), self.out.as_os_str()])
    }

    /// `ckptfs verify VIEW --out DIR`
    fn against_view(&self) -> (i32, String, String) {
        let (base, out) = (self.base.as_os_str(), self.out.as_os_str());
        let flags = ["verify", "--fp8", "--out"].map(OsStr::new);
        run(flags.into_iter().chain([out, "--base".as_ref(), base]))
    }
}

/// Exit code, standard output and standard error.
fn run<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> (i32, String, String) {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("it exits by itself");
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn a_sound_directory_and_an_equal_one_exit_with_0() {
    let written = Written::new();
    let (code, out, err) = written.structure();
    assert_eq!(code, 0, "{err}");
    assert_names(&out, &["3 tensors", "1 shard\n", "no problems found"]);
    assert!(!out.contains("were not read"), "{out}");
    let (code, out, err) = written.against_view();
    assert_eq!(code, 0, "{err}");
    assert_names(&out, &["3 files", "no problems found"]);
}

#[test]
fn every_reading_is_said_before_it_begins_unless_quiet() {
    let written = Written::new();
    // 2 × 2 blocks, with a scale of 4 bytes each.
    const SCALES: &str = "reading 16 B: the scales of 1 tensor";
    let (_, _, err) = written.structure();
    assert_names(&err, &[SCALES]);
    assert_eq!(err.lines().count(), 1, "{err}");
    let (_, _, err) = written.against_view();
    assert_names(
        &err,
        &["reading ", "3 files of the same length", "every byte"],
    );
    assert_eq!(err.lines().count(), 1, "{err}");
    let sums = format!("{}  config.json\n", "0".repeat(64));
    fs::write(written.out.join("SHA256SUMS"), sums).unwrap();
    let len = written.out.join("config.json").metadata().unwrap().len();
    let (_, _, err) = written.structure();
    assert_names(
        &err,
        &[
            SCALES,
            &format!("reading {len} B: 1 file named by SHA256SUMS"),
        ],
    );
    assert_eq!(err.lines().count(), 2, "{err}");
    let quiet = ["verify", "--quiet"].map(OsStr::new);
    let (_, _, err) = run(quiet.into_iter().chain([written.out.as_os_str()]));
    assert_eq!(err, "");
}

#[test]
fn the_plan_of_a_mount_is_not_taken_from_an_ordinary_directory() {
    let written = Written::new();
    let name = "model.layers.0.self_attn.o_proj.weight_scale_inv";
    let plan =
        format!(r#"{{"shards": [{{"tensors": [{{"name": "{name}", "scale_fmt": "ue8m0"}}]}}]}}"#);
    fs::create_dir(written.out.join(".ckptfs")).unwrap();
    fs::write(written.out.join(".ckptfs/plan.json"), plan).unwrap();
    let (code, out, err) = written.structure();
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains("were not read"), "{out}");
    assert_names(&err, &["the scales of 1 tensor"]);
}

#[test]
fn problems_are_printed_with_exit_code_1() {
    let written = Written::new();
    let shard = written.out.join("model.safetensors");
    let last = shard.metadata().unwrap().len() as usize - 1;
    flip_byte(&shard, last);
    let (code, out, err) = written.against_view();
    assert_eq!(code, 1, "{err}");
    assert_names(
        &out,
        &[
            "problem[view-differs]: model.safetensors",
            "in tensor",
            "1 problem found",
        ],
    );

    fs::copy(&shard, written.out.join("other.safetensors")).unwrap();
    let (code, out, err) = written.structure();
    assert_eq!(code, 1, "{err}");
    assert_names(
        &out,
        &[
            "problem[loaders-differ]: ",
            "other.safetensors",
            "1 problem found",
        ],
    );
}

#[test]
fn a_directory_that_cannot_be_read_is_an_error_with_exit_code_1() {
    let written = Written::new();
    let nowhere = written.workspace.path().join("nowhere");
    let (code, _, err) = run(["verify".as_ref(), nowhere.as_os_str()]);
    assert_eq!(code, 1);
    assert_names(&err, &["ckptfs: ", "nowhere"]);
}

#[test]
fn neither_or_both_of_a_directory_and_a_view_is_wrong_usage() {
    for arguments in [
        &["verify"][..],
        &["verify", "--base", "base"],
        &["verify", "--out", "out"],
        &["verify", "--fp8", "--out", "out"],
        &["verify", "out", "--base", "base"],
        &["verify", "out", "--out", "out"],
        &["verify", "out", "--fp8"],
    ] {
        let (code, out, err) = run(arguments.iter().map(OsStr::new));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert_names(&err, &["Usage: ckptfs verify"]);
    }
}

#[test]
fn it_goes_by_the_checksums_that_are_there() {
    let written = sha256::written(true, false, 1);
    let verify = || {
        let mut command = Command::new(BINARY);
        let output = command.arg("verify").arg(&written.out).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, text) = verify();
    assert_eq!(code, Some(0), "{text}");
    assert_names(&text, &["checksums of 7 files", "no problems found"]);
    flip_byte(&written.out.join(sha256::FIRST), 9000);
    let (code, text) = verify();
    assert_eq!(code, Some(1), "{text}");
    assert_names(
        &text,
        &[
            "problem[bad-checksum]: ",
            sha256::FIRST,
            "its SHA-256 is",
            "1 problem found",
        ],
    );
}

//! `ckptfs materialize` as a command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use ckptfs::ops::{Operations, QuantizeParams};
use ckptfs::recipe::ViewRequest;
use rustix::process::{Pid, Signal, kill_process};
use safetensors::Dtype;
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::safetensors_file::{entry, with_length};
use crate::common::{Workspace, assert_names};
use crate::directory::{files, names};

const BINARY: &str = env!("CARGO_BIN_EXE_ckptfs");
const WEIGHT: &str = "model.layers.0.self_attn.o_proj.weight";

fn base() -> Checkpoint {
    Checkpoint::single([bf16(WEIGHT, &[256, 256]), bf16("model.norm.weight", &[256])])
}

/// A base whose one tensor takes `bytes` in the FP8 view and hardly anything on disk.
fn write_sparse_base(workspace: &Workspace, bytes: usize) -> PathBuf {
    let base = workspace.write("base", &Checkpoint::new().without_index());
    let shape = [bytes / 4096, 4096];
    let header = json!({WEIGHT: entry(Dtype::BF16, &shape, 0, 2 * bytes)});
    let start = with_length(&header.to_string());
    let path = base.join("model.safetensors");
    fs::write(&path, &start).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len((start.len() + 2 * bytes) as u64).unwrap();
    base
}

fn materialize(base: &Path, out: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("materialize").arg("--base").arg(base);
    command.args(flags).arg("--out").arg(out);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

#[test]
fn it_writes_the_view_and_says_so_on_standard_output() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let out = workspace.path().join("out");
    let output = run(materialize(&base, &out, &["--fp8", "--jobs", "2"]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_names(
        &text(&output.stdout),
        &["1 changed (fp8)", "wrote", "out", "3 files"],
    );
    assert_eq!(text(&output.stderr), "");

    let request = ViewRequest {
        operations: Operations {
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    };
    assert_eq!(files(&out), read_all(&request.plan().unwrap()));
}

#[test]
fn linked_shards_are_counted() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let out = workspace.path().join("out");
    let output = run(materialize(&base, &out, &["--hardlink"]));
    assert_names(&text(&output.stdout), &["1 shard linked"]);
}

/// Bytes that the job reads, by the kernel's account, copies inside the kernel included.
fn bytes_read(job: &Command) -> u64 {
    let mut command = Command::new("sh");
    // A process accounts for its children too once they have ended.
    command.args(["-c", "\"$@\" >&2 && cat /proc/$$/io", "sh"]);
    command.arg(job.get_program()).args(job.get_args());
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let account = text(&output.stdout);
    let mut counts = account.lines();
    let count = counts.find_map(|line| line.strip_prefix("rchar: "));
    count.unwrap().parse().unwrap()
}

#[test]
fn a_hard_linked_patch_reads_no_tensor_of_the_base() {
    const BASE: u64 = 64 << 20;
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, BASE as usize / 2);
    let extra = workspace.write(
        "extra",
        &Checkpoint::single([bf16("mtp.norm.weight", &[256])]),
    );
    let patch = ["--extra", extra.to_str().unwrap()];
    let copied = workspace.path().join("copied");
    let read = bytes_read(&materialize(&base, &copied, &patch));
    assert!(read > BASE, "copying reads the base, and {read} is less");
    let linked = workspace.path().join("linked");
    let read = bytes_read(&materialize(
        &base,
        &linked,
        &[&patch[..], &["--hardlink"]].concat(),
    ));
    assert!(read < BASE / 16, "{read} bytes");
    assert!(files(&linked) == files(&copied), "the bytes differ");
}

#[test]
fn a_refusal_goes_to_standard_error_with_exit_code_1() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let before = files(&base);
    let output = run(materialize(&base, &base, &["--overwrite"]));
    assert_eq!(output.status.code(), Some(1));
    assert_names(&text(&output.stderr), &["ckptfs: ", "this is", "base"]);
    assert_eq!(files(&base), before);
}

#[test]
fn a_missing_destination_is_wrong_usage() {
    let output = run({
        let mut command = Command::new(BINARY);
        command.args(["materialize", "--base", "base"]);
        command
    });
    assert_eq!(output.status.code(), Some(2));
    assert_names(&text(&output.stderr), &["--out"]);
}

#[test]
fn an_interrupted_job_without_a_complete_file_leaves_nothing() {
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, 1 << 30);
    let out = workspace.path().join("out");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = materialize(&base, &out, &["--fp8", "--jobs", "1"]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It has begun once its partial directory is there.
        while names(workspace.path()) == ["base"] {
            thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stdout));
        assert_names(&text(&output.stderr), &["interrupted"]);
        assert_eq!(names(workspace.path()), ["base"]);
    }
}

/// Runs `script` with "$1", a new disk of `size` that nobody else sees, "$2", the binary, and
/// further arguments.
fn with_disk(workspace: &Workspace, size: &str, script: &str, arguments: &[&str]) -> Output {
    let disk = workspace.path().join("disk");
    fs::create_dir_all(&disk).unwrap();
    let script = format!("mount -t tmpfs -o size={size} disk \"$1\" || exit 77\n{script}");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.arg(disk).arg(BINARY).args(arguments);
    run(command)
}

#[test]
fn a_full_disk_is_an_error_that_names_the_destination_and_the_bytes_needed() {
    const MIB: usize = 1 << 20;
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, 8 * MIB);
    let base = base.to_str().unwrap();
    let script = r#"
        "$2" materialize --base "$3" $4 --no-space-check --out "$1/out" >&2
        status=$?
        ls -A "$1"
        exit $status
    "#;
    for (flags, needed) in [("--fp8", 8 * MIB), ("", 16 * MIB)] {
        let output = with_disk(&workspace, "4m", script, &[base, flags]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_names(&error, &["disk/out", "no space is left"]);
        let numbers = error
            .split_whitespace()
            .filter_map(|word| word.parse().ok());
        let bytes: usize = numbers.max().unwrap();
        assert!((needed..needed + MIB).contains(&bytes), "{error}");
        assert_eq!(text(&output.stdout), "", "nothing is left on the disk");
    }
}

#[test]
fn too_little_space_is_found_out_before_anything_is_written() {
    const MIB: usize = 1 << 20;
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, 8 * MIB);
    let script = r#"
        "$2" materialize --base "$3" $4 --out "$1/out" >&2
        status=$?
        ls -A "$1"
        exit $status
    "#;
    for (flags, needed) in [("--fp8", 8 * MIB), ("", 16 * MIB)] {
        let output = with_disk(&workspace, "4m", script, &[base.to_str().unwrap(), flags]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_names(&error, &["disk/out: too little space", "--no-space-check"]);
        let numbers = error
            .split_whitespace()
            .filter_map(|word| word.parse().ok());
        let numbers: Vec<usize> = numbers.filter(|number| *number > MIB).collect();
        let [needs, available] = numbers[..] else {
            panic!("{error}")
        };
        assert!((needed..needed + MIB).contains(&needs), "{error}");
        assert!((3 * MIB..=4 * MIB).contains(&available), "{error}");
        assert_eq!(text(&output.stdout), "", "nothing was made");
    }
}

#[test]
fn what_is_complete_or_linked_needs_no_space() {
    let workspace = Workspace::new();
    let weight = |i: usize, rows: usize| {
        let name = format!("model.layers.{i}.self_attn.o_proj.weight");
        [bf16(&name, &[rows, 1024])]
    };
    let base = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", weight(0, 1024))
        .shard("model-00002-of-00002.safetensors", weight(1, 4096));
    let base = workspace.write("base", &base);
    // 10 MiB; somebody else has filled the disk but for 7, and then but for 1.
    let script = r#"
        dd if=/dev/zero of="$1/other" bs=1M count=4 2>/dev/null
        "$2" materialize --base "$3" --out "$1/out" --part 2/2 || exit 2
        "$2" materialize --base "$3" --out "$1/out" --part 1/2 && exit 3
        dd if=/dev/zero of="$1/another" bs=1M count=4 2>/dev/null
        "$2" materialize --base "$3" --out "$1/out" --part 2/2 || exit 4
        rm "$1/other" "$1/another"
        "$2" materialize --base "$3" --out "$1/out" --part 1/2 || exit 5
        "$2" materialize --base "$3" --out "$1/out" --finish || exit 5
        "$2" materialize --base "$1/out" --out "$1/copied" && exit 6
        "$2" materialize --base "$1/out" --hardlink --out "$1/linked" || exit 7
        for shard in "$3"/*.safetensors; do
            cmp "$shard" "$1/out/${shard##*/}" && cmp "$shard" "$1/linked/${shard##*/}" || exit 8
        done
    "#;
    let output = with_disk(&workspace, "11m", script, &[base.to_str().unwrap()]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert_names(
        &text(&output.stdout),
        &["1 were complete", "2 shards linked"],
    );
    assert_eq!(error.matches("too little space").count(), 2, "{error}");
    assert_eq!(error.matches("no space is left").count(), 0, "{error}");
}

#[test]
fn once_there_is_space_a_run_goes_on_with_what_was_complete() {
    let workspace = Workspace::new();
    let base = Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [bf16(
                "model.layers.0.self_attn.o_proj.weight",
                &[1024, 1024],
            )],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [bf16(
                "model.layers.1.self_attn.o_proj.weight",
                &[2048, 2048],
            )],
        );
    let base = workspace.write("base", &base);
    // Somebody else has filled most of the disk.
    let script = r#"
        dd if=/dev/zero of="$1/other" bs=1M count=13 2>/dev/null
        "$2" materialize --base "$3" --out "$1/out" --part 2/2 >&2
        "$2" materialize --base "$3" --out "$1/out" --part 1/2 --no-space-check >&2 && exit 3
        test -e "$1/out" && exit 4
        ls -A "$1/.out.ckptfs-partial/view"
        rm "$1/other"
        "$2" materialize --base "$3" --out "$1/out" --part 1/2 >&2 &&
            "$2" materialize --base "$3" --out "$1/out" --finish >&2 && diff -r "$1/out" "$3"
    "#;
    let output = with_disk(&workspace, "16m", script, &[base.to_str().unwrap()]);
    let error = text(&output.stderr);
    assert_names(
        &error,
        &["disk/out", "no space is left", "keeps what is complete"],
    );
    let printed = text(&output.stdout);
    assert!(
        printed.starts_with("model-00001-of-00002.safetensors\n"),
        "{printed}"
    );
    assert!(!printed.contains("differ"), "{printed}");
}

#[test]
fn a_read_only_destination_is_named_as_the_user_did_with_what_to_do() {
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, 1 << 20);
    let script = r#"
        mkdir "$1/model"
        mount -o remount,ro "$1"
        for flags in "--out $1/out" "--out $1/model --weights-only" \
            "--out $1/model --overwrite"; do
            "$2" materialize --base "$3" --no-space-check --yes $flags && exit 3
        done
        "$2" report "$3" --out "$1/page.html" && exit 3
        "$2" plan "$3" --emit-recipe "$1/view.yml" && exit 3
        exit 0
    "#;
    let output = with_disk(&workspace, "4m", script, &[base.to_str().unwrap()]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let lines: Vec<&str> = error.lines().collect();
    for (line, out) in lines
        .iter()
        .zip(["out", "model", "model", "page.html", "view.yml"])
    {
        let parts = [&format!("disk/{out}"), "read-only", "choose another place"];
        assert_names(line, &parts);
        assert!(
            !line.contains(".ckptfs") && !line.contains("os error"),
            "{line}"
        );
    }
    assert_eq!(lines.len(), 5, "{error}");
}

#[test]
fn a_file_that_may_not_grow_is_an_error_that_names_it() {
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, 8 << 20);
    let out = workspace.path().join("out");
    fs::create_dir(&out).unwrap();
    let mut command = Command::new("sh");
    // In blocks of 512 or 1024 bytes.
    let script = "trap '' XFSZ; ulimit -f 4096; exec \"$@\"";
    command.args(["-c", script, "sh", BINARY, "materialize", "--fp8", "--base"]);
    command.arg(&base).arg("--out").arg(&out);
    let output = run(command);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_names(&error, &["out/model.safetensors", "ulimit -f"]);
    assert_eq!(names(&out), [""; 0]);
    assert!(run(materialize(&base, &out, &["--fp8"])).status.success());
    assert_eq!(names(workspace.path()), ["base", "out"]);
}

#[test]
fn a_source_on_another_filesystem_is_copied_and_not_linked() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let script = r#"
        "$2" materialize --base "$3" --hardlink --out "$1/out" && diff -r "$1/out" "$3"
    "#;
    let output = with_disk(&workspace, "64m", script, &[base.to_str().unwrap()]);
    let printed = text(&output.stdout);
    assert_names(&printed, &["0 shards linked", "1 copied because"]);
    // A base of a single file has no index; the view has.
    assert_names(&printed, &["Only in", ": model.safetensors.index.json"]);
    assert!(!printed.contains("differ"), "{printed}");
}

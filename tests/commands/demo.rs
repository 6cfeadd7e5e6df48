//! `ckptfs demo` shows the main job and leaves nothing behind.

use std::process::{Command, Output};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ckptfs");

/// Runs `command` with a temporary directory of its own, which must be empty afterwards.
fn run(mut command: Command) -> String {
    let temporary = TempDir::new().unwrap();
    let output = command.env("TMPDIR", temporary.path()).output().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let stdout = String::from_utf8(stdout).unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0, "{stdout}");
    stdout
}

/// The tensors that were found right: equal to their source, and quantized.
fn checked(text: &str) -> (usize, usize) {
    let line = text.lines().find(|line| line.starts_with("checked:"));
    let numbers: Vec<usize> = line
        .expect("the demo checks what it reads")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    (numbers[0], numbers[1])
}

/// Norms and embeddings of 8 layers, the MTP block and around, and 7 projections of 9 blocks.
const TENSORS: (usize, usize) = (8 * 2 + 2 + 2 + 1, 7 * 9);

#[test]
fn the_demo_mounts_reads_and_checks_a_patched_fp8_view() {
    let mut command = Command::new(PROGRAM);
    command.arg("demo");
    let text = run(command);
    assert!(text.contains("$ ckptfs mount"), "{text}");
    assert_eq!(checked(&text), TENSORS);
}

#[test]
fn without_fuse_the_demo_says_why_and_writes_the_view_instead() {
    // A mount namespace of its own, in which /dev/fuse is not the device.
    let mut command = Command::new("unshare");
    let script = format!("mount --bind /dev/null /dev/fuse && exec {PROGRAM} demo");
    command.args(["--mount", "sh", "-c", &script]);
    let text = run(command);
    assert!(text.contains("FUSE cannot be used here ("), "{text}");
    assert!(text.contains("$ ckptfs materialize"), "{text}");
    assert!(!text.contains("$ ckptfs mount"), "{text}");
    assert_eq!(checked(&text), TENSORS);
}

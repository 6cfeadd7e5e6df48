//! A disk that fills up: what is complete stays, and the same command completes the rest once there is
//! space.

use std::process::Command;

use rustix::process::geteuid;
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16};

/// A run on a small filesystem, one with more space, and a check of what it wrote.
const SCRIPT: &str = r#"
    disk=$1 base=$2 jobs=$3 size=$4 ckptfs=$5
    mount -t tmpfs -o size="$size" none "$disk" || exit 99
    write() {
        "$ckptfs" --quiet materialize --yes --no-space-check --no-repack --jobs "$jobs" \
            --base "$base" --out "$disk/out"
        echo "exit $?"
    }
    write
    numbers() { (cd "$1" && stat -c "%i %n" *.safetensors | LC_ALL=C sort); }
    numbers "$disk/.out.ckptfs-partial/view" > "$base.kept"
    echo "kept $(wc -l < "$base.kept")"
    mount -o remount,size=1g "$disk"
    write
    echo "the same $(numbers "$disk/out" | LC_ALL=C comm -12 - "$base.kept" | wc -l)"
    "$ckptfs" --quiet verify --no-repack --base "$base" --out "$disk/out" > "$base.verified"
    echo "verified $?"
"#;

/// Runs the script, as root or as one in a namespace of its own, and asserts that so many files are
/// complete after the first run.
fn assert_kept(checkpoint: &Checkpoint, size: &str, jobs: usize, kept: usize) {
    let workspace = Workspace::new();
    let base = workspace.write("base", checkpoint);
    let disk = workspace.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", SCRIPT, "sh"]).arg(disk).arg(base);
    command.args([&jobs.to_string(), size, env!("CARGO_BIN_EXE_ckptfs")]);
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_ne!(output.status.code(), Some(99), "a tmpfs is needed: {error}");
    assert!(error.contains("no space is left"), "{error}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected = format!("exit 1\nkept {kept}\nexit 0\nthe same {kept}\nverified 0\n");
    assert_eq!(printed, expected, "with {jobs} jobs: {error}");
}

fn shards(count: usize, tensors: impl Fn(usize) -> Vec<TensorData>) -> Checkpoint {
    (1..=count).fold(Checkpoint::new(), |checkpoint, number| {
        let name = format!("model-{number:05}-of-{count:05}.safetensors");
        checkpoint.shard(&name, tensors(number))
    })
}

#[test]
fn what_has_space_is_complete_and_stays_and_the_next_run_completes_the_rest() {
    let checkpoint = shards(20, |number| {
        vec![bf16(&format!("layers.{number}.weight"), &[512, 1024])]
    });
    for jobs in [1, 4, 32] {
        assert_kept(&checkpoint, "6m", jobs, 5);
    }
}

#[test]
fn a_file_that_several_threads_write_is_completed_too() {
    const TENSOR: usize = 16 << 20;
    let checkpoint = shards(3, |number| {
        let tensor = |i: usize| {
            let bytes = vec![(3 * number + i) as u8; TENSOR];
            TensorData::new(&format!("layers.{number}.{i}"), Dtype::U8, &[TENSOR], bytes)
        };
        (0..3).map(tensor).collect()
    });
    for jobs in [1, 8] {
        assert_kept(&checkpoint, "100m", jobs, 2);
    }
}

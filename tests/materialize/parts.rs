//! A view that several processes write together.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::{Workspace, assert_names};
use crate::directory::{files, flip_byte, names};

const BINARY: &str = env!("CARGO_BIN_EXE_ckptfs");

fn base() -> Checkpoint {
    let base = Checkpoint::new().aux("deep/er/notes.txt", "some text");
    (1..=7).fold(base, |base, number| {
        let weight = format!("model.layers.{number}.self_attn.o_proj.weight");
        let name = format!("model-{number:05}-of-00007.safetensors");
        base.shard(&name, [bf16(&weight, &[128 * number, 256])])
    })
}

struct Job {
    workspace: Workspace,
    base: PathBuf,
    out: PathBuf,
}

impl Job {
    fn new() -> Self {
        let workspace = Workspace::new();
        Job {
            base: workspace.write("base", &base()),
            out: workspace.path().join("out"),
            workspace,
        }
    }

    fn command(&self, flags: &str) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["materialize", "--fp8", "--base"])
            .arg(&self.base);
        command
            .arg("--out")
            .arg(&self.out)
            .args(flags.split_whitespace());
        command
    }

    fn spawn(&self, flags: &str) -> Child {
        let mut command = self.command(flags);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, flags: &str) -> String {
        succeeded(self.command(flags).output().unwrap())
    }

    fn refused(&self, flags: &str, parts: &[&str]) {
        self.refused_with(1, flags, parts);
    }

    fn refused_with(&self, code: i32, flags: &str, parts: &[&str]) {
        let output = self.command(flags).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{flags}: {error}");
        assert_names(&error, parts);
    }

    fn partial(&self) -> PathBuf {
        self.workspace.path().join(".out.ckptfs-partial")
    }

    /// Asserts that the destination is what one run writes.
    fn assert_complete(&self, flags: &str) {
        assert!(!self.partial().exists());
        let whole = Job {
            workspace: Workspace::new(),
            base: self.base.clone(),
            out: self.workspace.path().join("whole"),
        };
        whole.run(flags);
        assert!(files(&self.out) == files(&whole.out), "the bytes differ");
    }
}

fn succeeded(output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn parts_that_are_written_at_once_are_the_view() {
    // More parts than shards: some have nothing to do.
    for (parts, flags) in [(1, ""), (3, "--sha256"), (9, "")] {
        let job = Job::new();
        let children: Vec<Child> = (1..=parts)
            .map(|part| job.spawn(&format!("--part {part}/{parts} {flags}")))
            .collect();
        for child in children {
            let text = succeeded(child.wait_with_output().unwrap());
            assert_names(&text, &[&format!("of {parts} of"), "--finish"]);
            assert!(!job.out.exists());
        }
        let mut shards = names(&job.partial().join("view"));
        shards.retain(|name| name.ends_with(".safetensors"));
        assert_eq!(shards.len(), 7, "{shards:?}");
        job.run(&format!("--finish {flags}"));
        job.assert_complete(flags);
    }
}

#[test]
fn what_is_missing_is_named_by_part() {
    let job = Job::new();
    job.refused("--finish", &[".out.ckptfs-partial", "no part", "--part"]);
    job.run("--part 2/3");
    job.refused("--finish", &["1 (not begun), 3 (not begun)"]);
    job.run("--part 1/3");
    job.run("--part 3/3");
    let shard = "view/model-00007-of-00007.safetensors";
    fs::remove_file(job.partial().join(shard)).unwrap();
    job.refused("--finish", &["not complete: 1 (2 of 3 shards)"]);
    assert!(!job.out.exists());
    let text = job.run("--part 1/3");
    assert_names(&text, &["part 1 of 3", "2 were complete"]);
    job.run("--finish");
    job.assert_complete("");
}

#[test]
fn a_part_that_is_run_again_repairs_what_it_wrote() {
    let job = Job::new();
    for part in 1..=2 {
        job.run(&format!("--part {part}/2"));
    }
    for shard in [
        "view/model-00007-of-00007.safetensors",
        "view/model-00001-of-00007.safetensors",
    ] {
        flip_byte(&job.partial().join(shard), 5000);
    }
    for part in 1..=2 {
        job.run(&format!("--part {part}/2"));
    }
    job.run("--finish");
    job.assert_complete("");
}

#[test]
fn checksums_can_be_asked_for_later() {
    let job = Job::new();
    job.run("--part 1/2 --sha256");
    job.run("--part 2/2");
    job.refused("--finish --sha256", &["without checksums: 2; use --sha256"]);
    assert_names(&job.run("--part 2/2 --sha256"), &["0 B written"]);
    job.run("--finish --sha256");
    job.assert_complete("--sha256");
}

#[test]
fn parts_of_something_else_are_neither_mixed_in_nor_deleted() {
    let job = Job::new();
    job.run("--part 1/2");
    let before = files(&job.partial());
    job.refused(
        "--part 2/3",
        &["begun in 2 parts", "written in 3 parts", "delete"],
    );
    job.refused("", &["begun in 2 parts", "as a whole"]);
    job.refused("--part 2/2 --scale-fmt float32", &["another view"]);
    job.refused("--finish --scale-fmt float32", &["another view"]);
    let after = |job: &Job| {
        let mut files = files(&job.partial());
        files.retain(|path, _| path.extension().is_none_or(|e| e != "lock"));
        files
    };
    let mut unlocked = before.clone();
    unlocked.retain(|path, _| path.extension().is_none_or(|e| e != "lock"));
    assert!(after(&job) == unlocked, "something was changed");

    // The same shard with another content and another time.
    flip_byte(&job.base.join("model-00003-of-00007.safetensors"), 5000);
    let changed = "model-00003-of-00007.safetensors was changed since";
    job.refused("--part 2/2", &[changed]);
    job.refused("--finish", &[changed]);
}

#[test]
fn a_source_may_be_a_copy_elsewhere_that_kept_its_times() {
    let mut job = Job::new();
    job.run("--part 1/2");
    let copy = job.workspace.path().join("copy");
    let status = Command::new("cp")
        .arg("-a")
        .arg(&job.base)
        .arg(&copy)
        .status();
    assert!(status.unwrap().success());
    job.base = copy;
    job.run("--part 2/2");
    job.run("--finish");
    job.assert_complete("");
}

#[test]
fn a_part_or_the_end_that_another_process_is_at_is_refused() {
    use rustix::fs::{FlockOperation, flock};
    let job = Job::new();
    job.run("--part 1/2");
    job.run("--part 2/2");
    // A lock as that of a process that writes part 1.
    let locks =
        ["lock", "part-1.lock"].map(|name| fs::File::open(job.partial().join(name)).unwrap());
    flock(&locks[0], FlockOperation::LockShared).unwrap();
    flock(&locks[1], FlockOperation::LockExclusive).unwrap();
    // The same may work later.
    job.refused_with(75, "--part 1/2", &["part-1.lock", "another process"]);
    job.refused_with(75, "--finish", &["lock", "another process"]);
    job.run("--part 2/2");
    // Not by closing them: a child of another test could have them for a moment.
    for lock in locks {
        flock(lock, FlockOperation::Unlock).unwrap();
    }
    job.run("--finish");
    job.assert_complete("");
}

#[test]
fn parts_that_cannot_be_are_wrong_usage() {
    let job = Job::new();
    for flags in [
        "--part 0/2",
        "--part 3/2",
        "--part 1",
        "--part a/b",
        "--part 1/2 --finish",
        "--part 1/2 --weights-only",
        "--finish --weights-only",
        "--sha256 --weights-only",
    ] {
        let output = job.command(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags}");
    }
}

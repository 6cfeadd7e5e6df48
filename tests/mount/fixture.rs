//! A checkpoint, views of it, and mounts that are always taken away again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use ckptfs::recipe::{Plan, Shards, ViewRequest};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback;

/// Which view to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Base shards as they are, and one shard from the extra.
    Patched,
    /// All shards headed anew, with computed and stored tensors side by side.
    PatchedFp8,
    /// The base alone, its shards under standard names.
    Renumbered,
}

/// A base, an extra that adds a tensor to it, and an empty directory to mount on.
pub(crate) struct Fixture {
    pub(crate) base: PathBuf,
    pub(crate) extra: PathBuf,
    pub(crate) mountpoint: PathBuf,
    workspace: Workspace,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        static CHECKPOINTS: OnceLock<[Checkpoint; 2]> = OnceLock::new();
        let [base, extra] = CHECKPOINTS.get_or_init(checkpoints);
        let workspace = Workspace::new();
        let mountpoint = workspace.path().join("mount point");
        fs::create_dir(&mountpoint).unwrap();
        Fixture {
            base: workspace.write("base", base),
            extra: workspace.write("extra", extra),
            mountpoint,
            workspace,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.workspace.path().join(name)
    }

    /// The flags that name a view.
    pub(crate) fn flags(&self, kind: Kind) -> Vec<OsString> {
        let mut flags: Vec<OsString> = vec!["--base".into(), self.base.clone().into()];
        if kind == Kind::Renumbered {
            flags.extend(["--shards".into(), "renumber".into()]);
            return flags;
        }
        flags.extend(["--extra".into(), self.extra.clone().into()]);
        if kind == Kind::PatchedFp8 {
            flags.push("--fp8".into());
        }
        flags
    }

    /// The same view, to be read in this process.
    pub(crate) fn plan(&self, kind: Kind) -> Plan {
        if kind == Kind::Renumbered {
            let request = ViewRequest {
                shards: Some(Shards::Renumber),
                ..ViewRequest::new(&self.base)
            };
            return request.plan().unwrap();
        }
        let request = ViewRequest::new(&self.base).with(|asked| {
            asked.patch.extras.push(self.extra.clone().into());
            asked.quantize.rules =
                (kind == Kind::PatchedFp8).then_some(ckptfs::ops::RuleSet::Exact);
        });
        request.plan().unwrap()
    }

    /// What every file of the view must hold.
    pub(crate) fn expected(&self, kind: Kind) -> BTreeMap<PathBuf, Vec<u8>> {
        readback::read_all(&self.plan(kind))
    }

    /// Runs `ckptfs mount` of a view on `mountpoint`.
    pub(crate) fn try_mount(&self, kind: Kind, mountpoint: &Path, more: &[&str]) -> Output {
        let mut command = ckptfs("mount");
        command.args(self.flags(kind)).arg(mountpoint).args(more);
        command.output().unwrap()
    }

    /// Mounts a view in the background.
    pub(crate) fn mount(&self, kind: Kind, more: &[&str]) {
        let output = self.try_mount(kind, &self.mountpoint, more);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Mounts a view in a process that stays in the foreground.
    pub(crate) fn serve(&self, kind: Kind) -> Server {
        self.serve_with(kind, &[])
    }

    /// The same with further flags.
    pub(crate) fn serve_with(&self, kind: Kind, more: &[&str]) -> Server {
        self.start(kind, &[], more, Stdio::null())
    }

    /// Mounts a view in a process that stays in the foreground and logs to standard error, which
    /// here is the file `log`.
    pub(crate) fn serve_logging_to(&self, kind: Kind, log: &Path) -> Server {
        self.start(kind, &[], &[], File::create(log).unwrap().into())
    }

    /// Mounts a view in a process that stays in the foreground and is started by `launcher`.
    pub(crate) fn serve_under(&self, kind: Kind, launcher: &[&str]) -> Server {
        self.start(kind, launcher, &[], Stdio::null())
    }

    fn start(&self, kind: Kind, launcher: &[&str], more: &[&str], stderr: Stdio) -> Server {
        let program = [env!("CARGO_BIN_EXE_ckptfs"), "mount", "--foreground"];
        let mut words = launcher.iter().chain(&program);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(self.flags(kind))
            .args(more)
            .arg(&self.mountpoint);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let server = Server(command.stderr(stderr).spawn().unwrap());
        eventually("the mount is there", || self.is_mounted());
        // Waits for an answer. A stat could be answered by the kernel.
        rustix::fs::statvfs(&self.mountpoint).unwrap();
        server
    }

    pub(crate) fn is_mounted(&self) -> bool {
        is_mounted(&self.mountpoint)
    }

    /// The process that serves the mount in the background.
    pub(crate) fn serving_process(&self) -> Pid {
        let mountpoint = self.mountpoint.to_str().unwrap();
        let mut pgrep = Command::new("pgrep");
        let output = pgrep.args(["-f", mountpoint]).output().unwrap();
        let id = String::from_utf8(output.stdout).unwrap();
        Pid::from_raw(id.trim().parse().unwrap()).unwrap()
    }

    /// Runs `ckptfs unmount`.
    pub(crate) fn unmount(&self, more: &[&str]) -> Output {
        let mut command = ckptfs("unmount");
        command.arg(&self.mountpoint).args(more).output().unwrap()
    }

    /// The path in the mount of the file that holds computed tensors.
    pub(crate) fn shard(&self) -> PathBuf {
        self.mountpoint.join("model-00001-of-00003.safetensors")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        while is_mounted(&self.mountpoint) {
            rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH).unwrap();
        }
    }
}

/// A `ckptfs mount --foreground`. Killed when dropped.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.0);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// How it ended.
    pub(crate) fn status(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, about to run `command`.
pub(crate) fn ckptfs(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    program.arg(command).stdin(Stdio::null());
    program
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that `output` is of a program that failed and named all of `parts`.
pub(crate) fn assert_refused(output: &Output, parts: &[&str]) {
    assert_ended(output, 1, parts);
}

/// The same of a command that may work later.
pub(crate) fn assert_refused_for_now(output: &Output, parts: &[&str]) {
    assert_ended(output, 75, parts);
}

fn assert_ended(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    crate::common::assert_names(&stderr(output), parts);
}

/// Whether something is mounted on `path`, by the kernel's account.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let escaped = path.to_str().unwrap().replace(' ', "\\040");
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(&escaped))
}

/// Waits for `condition`.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Every file below `directory`, by relative path.
pub(crate) fn read_tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(directory).unwrap().to_owned();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

/// Asserts that `found` is `expected`, without printing megabytes if not.
pub(crate) fn assert_same(
    found: &BTreeMap<PathBuf, Vec<u8>>,
    expected: &BTreeMap<PathBuf, Vec<u8>>,
) {
    assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
    for (path, bytes) in expected {
        assert!(found[path] == *bytes, "{} differs", path.display());
    }
}

/// A base of two shards with tensors of several tiles, ones with partial blocks, stored ones, and
/// other files; and an extra that overlaps with it and adds a tensor.
fn checkpoints() -> [Checkpoint; 2] {
    let layer = |i: usize, name: &str| format!("model.layers.{i}.{name}.weight");
    let base = Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [
                bf16("model.embed_tokens.weight", &[300, 96]),
                bf16(&layer(0, "input_layernorm"), &[97]),
                bf16(&layer(0, "self_attn.q_proj"), &[1536, 1024]),
                bf16(&layer(0, "mlp.gate_proj"), &[333, 200]),
            ],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [
                bf16(&layer(1, "self_attn.q_proj"), &[256, 384]),
                bf16("model.norm.weight", &[96]),
            ],
        )
        .aux("README.md", "# A model\n")
        .aux("empty.txt", "")
        .aux("tokenizer/deep/vocab.json", vec![b'x'; 70_000]);
    let extra = Checkpoint::single([
        bf16("model.norm.weight", &[96]),
        bf16("mtp.layers.0.mlp.down_proj.weight", &[128, 130]),
    ]);
    [base, extra]
}

//! Long jobs on a terminal: the question before, the line that is redrawn, and ^C.

use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};
use std::thread;
use std::time::{Duration, Instant};

use ckptfs::ops::{Operations, QuantizeParams};
use ckptfs::recipe::ViewRequest;
use rustix::fs::OFlags;
use rustix::io::FdFlags;
use safetensors::Dtype;
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::safetensors_file::{entry, with_length};
use crate::common::{Workspace, assert_names};
use crate::directory::{files, names};

const BINARY: &str = env!("CARGO_BIN_EXE_ckptfs");

/// A command on a terminal of its own, of 50 columns.
struct Terminal {
    child: Child,
    screen: File,
    shown: Vec<u8>,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let [screen, keyboard] = open_terminal(50);
        let input = || Stdio::from(keyboard.try_clone().unwrap());
        // A shell has what it starts in the background ignore ^C, and so would the command.
        let child = Command::new("env")
            .args(["--default-signal", "setsid", "--ctty", "--wait", BINARY])
            .args(arguments)
            .stdin(input())
            .stdout(input())
            .stderr(input())
            .spawn()
            .expect("env(1) runs");
        Terminal {
            child,
            screen: screen.into(),
            shown: Vec::new(),
        }
    }

    fn keys(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// All that was shown so far.
    fn shown(&mut self) -> String {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.screen.read(&mut buffer) {
            self.shown.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Waits for `condition`; `false` if the command ended before.
    fn wait_until(&mut self, condition: impl Fn(&str) -> bool) -> bool {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().unwrap().is_some();
            let shown = self.shown();
            if condition(&shown) {
                return true;
            }
            if ended {
                return false;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{shown}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Exit code and everything that was shown.
    fn end(mut self) -> (i32, String) {
        self.wait_until(|_| false);
        let status = self.child.wait().unwrap();
        (status.code().unwrap(), self.shown())
    }
}

/// The two ends of a terminal; reading from the first never waits.
fn open_terminal(columns: u16) -> [OwnedFd; 2] {
    let (mut screen, mut keyboard) = (0, 0);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: both numbers are there to be written, the size to be read; nothing else is asked for.
    let made = unsafe {
        libc::openpty(
            &mut screen,
            &mut keyboard,
            null_mut(),
            null(),
            &raw const size,
        )
    };
    assert_eq!(made, 0, "a terminal can be made");
    [screen, keyboard].map(|number| {
        // SAFETY: the descriptor is new, and nobody else's.
        let end = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&end, FdFlags::CLOEXEC).unwrap();
        if number == screen {
            rustix::fs::fcntl_setfl(&end, OFlags::NONBLOCK).unwrap();
        }
        end
    })
}

/// Starts the command until `keys`, typed once `condition` holds, stopped it: it may be done before.
fn interrupted(arguments: &[&str], condition: impl Fn(&str) -> bool) -> String {
    for _ in 0..20 {
        let mut terminal = Terminal::start(arguments);
        if terminal.wait_until(&condition) {
            terminal.keys("\x03");
        }
        let (code, shown) = terminal.end();
        match shown.contains("^C") {
            true if code == 130 => return shown,
            _ if shown.contains("interrupted") => panic!("{code}: {shown}"),
            _ => {}
        }
        if let Some(out) = arguments.windows(2).find(|pair| pair[0] == "--out") {
            fs::remove_dir_all(out[1]).unwrap();
        }
    }
    panic!("it is always done before: {arguments:?}");
}

/// A base of `shards` shards, of which each takes `bytes` in the FP8 view and hardly anything on
/// disk.
fn write_sparse_base(workspace: &Workspace, shards: usize, bytes: usize) -> PathBuf {
    let base = workspace.write("base", &Checkpoint::new().without_index());
    let shape = [bytes / 4096, 4096];
    let mut map = serde_json::Map::new();
    for shard in 0..shards {
        let name = format!("model.layers.{shard}.self_attn.o_proj.weight");
        let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let start =
            with_length(&json!({ &name: entry(Dtype::BF16, &shape, 0, 2 * bytes) }).to_string());
        let path = base.join(&file);
        fs::write(&path, &start).unwrap();
        let opened = File::options().write(true).open(&path).unwrap();
        opened.set_len((start.len() + 2 * bytes) as u64).unwrap();
        map.insert(name, file.into());
    }
    let index = json!({"metadata": {}, "weight_map": map});
    fs::write(base.join("model.safetensors.index.json"), index.to_string()).unwrap();
    base
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What is left of `shown` without the terminal's commands.
fn lines(shown: &str) -> Vec<String> {
    let commands = regex::Regex::new("\x1b\\[[0-9;?]*[A-Za-z]").unwrap();
    let plain = commands.replace_all(shown, "\r").replace("^C", "");
    let lines = plain
        .split(['\r', '\n'])
        .map(|line| line.trim_end().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn nothing_is_written_unless_the_answer_is_yes() {
    let workspace = Workspace::new();
    let weight = "model.layers.0.self_attn.o_proj.weight";
    let base = workspace.write("base", &Checkpoint::single([bf16(weight, &[256, 256])]));
    let out = workspace.path().join("out");
    let arguments = [
        "materialize",
        "--base",
        text(&base),
        "--fp8",
        "--out",
        text(&out),
    ];
    for answer in ["n\n", "\n", "yesterday\n", "\x04"] {
        let mut terminal = Terminal::start(&arguments);
        assert!(terminal.wait_until(|shown| shown.contains("[y/N]")));
        terminal.keys(answer);
        let (code, shown) = terminal.end();
        assert_eq!(code, 1, "{answer:?}: {shown}");
        assert_names(
            &shown,
            &[
                "base  ",
                "1 changed (fp8), 1 scale",
                "write  3 files",
                "space  ",
                " available",
                &format!("to {}? [y/N]", out.display()),
                "nothing was written",
            ],
        );
        assert_eq!(names(workspace.path()), ["base"]);
    }
    for (answer, more) in [(Some("y\n"), None), (None, Some("--yes"))] {
        let arguments: Vec<&str> = arguments.into_iter().chain(more).collect();
        let mut terminal = Terminal::start(&arguments);
        if let Some(answer) = answer {
            assert!(terminal.wait_until(|shown| shown.contains("[y/N]")));
            terminal.keys(answer);
        }
        let (code, shown) = terminal.end();
        assert_eq!(code, 0, "{shown}");
        assert_eq!(shown.contains("[y/N]"), answer.is_some());
        assert!(out.join("model.safetensors").exists());
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn an_interrupted_job_says_what_is_left_and_the_same_command_goes_on() {
    const SHARDS: usize = 24;
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, SHARDS, 16 << 20);
    let out = workspace.path().join("out");
    let arguments = [
        "materialize",
        "--yes",
        "--jobs",
        "1",
        "--base",
        text(&base),
        "--fp8",
        "--out",
        text(&out),
    ];
    let recorded = || {
        let records = workspace.path().join(".out.ckptfs-partial/files.jsonl");
        fs::read_to_string(records)
            .unwrap_or_default()
            .lines()
            .count()
    };
    let shown = interrupted(&arguments, |shown| {
        shown.contains(" %  ") && recorded() >= 2
    });
    let complete = recorded();
    assert!(!out.exists());
    assert_names(
        &shown,
        &[
            "interrupted; the destination is as it was",
            &format!("{complete} of {} files", SHARDS + 2),
            "the same command again",
        ],
    );
    let redrawn: Vec<String> = lines(&shown)
        .into_iter()
        .filter(|line| line.contains(" %  "))
        .collect();
    assert!(!redrawn.is_empty(), "{shown:?}");
    for line in &redrawn {
        assert!(line.chars().count() <= 50, "{line}");
        assert_names(line, &["MiB", "/s"]);
    }
    // The same command again, where nobody looks.
    let again = Command::new(BINARY).args(arguments).output().unwrap();
    // How far it is, every ten seconds, where the machine is that busy; and nothing else.
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.lines().all(|line| line.contains(" %  ")), "{said}");
    assert_names(
        &String::from_utf8_lossy(&again.stdout),
        &[&format!("{complete} were complete")],
    );
    let request = ViewRequest {
        operations: Operations {
            quantize: QuantizeParams::by_rules(),
            ..Operations::default()
        },
        ..ViewRequest::new(&base)
    };
    assert!(files(&out) == read_all(&request.plan().unwrap()));
}

#[test]
fn jobs_that_only_read_stop_too() {
    let workspace = Workspace::new();
    let base = write_sparse_base(&workspace, 1, 2 << 30);
    let base = text(&base);
    let summed = workspace.write("summed", &Checkpoint::single([bf16("w", &[2])]));
    let large = File::create(summed.join("large")).unwrap();
    large.set_len(16 << 30).unwrap();
    let sums = format!("{}  large\n", "0".repeat(64));
    fs::write(summed.join("SHA256SUMS"), sums).unwrap();
    let recipe = workspace.path().join("fp8.yml");
    fs::write(&recipe, format!("base: {base}\nview: {{fp8: true}}\n")).unwrap();
    for arguments in [
        &["diff", base, text(&recipe)][..],
        &["inspect", "--base", base, "--fp8"],
        &["plan", "--check-values", "--base", base, "--fp8"],
        &["verify", text(&summed)],
    ] {
        let shown = interrupted(arguments, |shown| shown.contains(" %  "));
        assert_names(&shown, &["ckptfs: interrupted"]);
    }
}

#[test]
fn a_quiet_job_prints_nothing() {
    let workspace = Workspace::new();
    let weight = "model.layers.0.self_attn.o_proj.weight";
    let base = workspace.write("base", &Checkpoint::single([bf16(weight, &[256, 256])]));
    let out = workspace.path().join("out");
    let arguments = [
        "materialize",
        "-q",
        "-y",
        "--base",
        text(&base),
        "--out",
        text(&out),
    ];
    let (code, shown) = Terminal::start(&arguments).end();
    assert_eq!((code, shown.trim()), (0, ""));
    assert!(out.join("model.safetensors").exists());
}

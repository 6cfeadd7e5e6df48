//! A materialize that is killed at any point leaves the destination as it was or complete, and the
//! next run gives the same bytes as one that was never stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use ckptfs::fast_paths::FastPath;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::directory::{files, names};

const BINARY: &str = env!("CARGO_BIN_EXE_ckptfs");
const SHARDS: usize = 24;
const PARTIAL: &str = ".out.ckptfs-partial";

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Many shards of different sizes, 7 MB in all.
fn base() -> Checkpoint {
    let mut base = Checkpoint::new().aux("deep/er/notes.txt", "some text");
    for shard in 0..SHARDS {
        let weight = format!("model.layers.{shard}.self_attn.o_proj.weight");
        let norm = format!("model.layers.{shard}.input_layernorm.weight");
        let tensors = [
            bf16(&weight, &[128 * (1 + shard % 8), 256]),
            bf16(&norm, &[256]),
        ];
        base = base.shard(
            &format!("model-{:05}-of-{SHARDS:05}.safetensors", shard + 1),
            tensors,
        );
    }
    base
}

/// A sequence of numbers that look random and are the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

/// A point in a run.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// So many files are complete.
    Recorded(u64),
    /// The files begin to take their place.
    Placing,
    /// They have it.
    Placed,
}

/// A base, and where its view is written to again and again.
struct Job {
    workspace: Workspace,
    base: PathBuf,
    out: PathBuf,
    flags: Vec<&'static str>,
    /// Whether names are exchanged at once.
    exchanges: bool,
    /// What is at the destination before.
    old: Option<Files>,
    /// What is there after.
    new: Files,
    /// Files of the view.
    files: u64,
}

impl Job {
    fn new(flags: &[&'static str], has_old: bool) -> Self {
        let workspace = Workspace::new();
        let base = workspace.write("base", &base());
        let uninterrupted = workspace.path().join("uninterrupted");
        let mut job = Job {
            out: uninterrupted.clone(),
            workspace,
            base,
            flags: flags.to_vec(),
            exchanges: FastPath::Exchange.is_enabled(),
            old: None,
            new: Files::new(),
            files: 0,
        };
        let output = job.run();
        assert!(output.status.success(), "{output:?}");
        job.new = files(&uninterrupted);
        job.files = job
            .new
            .keys()
            .filter(|path| !path.ends_with("SHA256SUMS"))
            .count() as u64;
        job.out = job.workspace.path().join("out");
        job.old = has_old.then(|| Files::from([("mine".into(), b"precious".to_vec())]));
        job
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["materialize", "--fp8", "--jobs", "2", "--base"]);
        command
            .arg(&self.base)
            .arg("--out")
            .arg(&self.out)
            .args(&self.flags);
        if !self.exchanges {
            command.env("CKPTFS_DISABLE", "exchange");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    /// Has the destination be as it was before the first run.
    fn reset(&self) {
        for path in [&self.out, &self.partial()] {
            if path.exists() {
                fs::remove_dir_all(path).unwrap();
            }
        }
        for (path, content) in self.old.iter().flatten() {
            fs::create_dir_all(&self.out).unwrap();
            fs::write(self.out.join(path), content).unwrap();
        }
    }

    fn partial(&self) -> PathBuf {
        self.workspace.path().join(PARTIAL)
    }

    /// Kills `child` once `point` has come, and after that many looks more. Returns whether it was
    /// still running.
    fn kill(&self, mut child: Child, point: Point, looks: u64) -> bool {
        let log = self.partial().join("files.jsonl");
        let has_come = || match point {
            Point::Recorded(files) => {
                let lines = |text: Vec<u8>| text.iter().filter(|byte| **byte == b'\n').count();
                fs::read(&log).is_ok_and(|text| lines(text) as u64 >= files)
            }
            Point::Placing => self.partial().join("placing.json").exists(),
            Point::Placed => self.out.join("config.json").exists(),
        };
        while !has_come() && child.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        for _ in 0..looks {
            std::hint::black_box(log.exists());
        }
        child.kill().unwrap();
        !child.wait().unwrap().success()
    }

    /// Whether the destination is complete; it is as it was otherwise.
    fn is_complete(&self) -> bool {
        let found = |path: &Path| path.exists().then(|| files(path));
        let mut old = found(&self.out);
        let complete = old.as_ref() == Some(&self.new);
        if old.is_none() && !self.exchanges {
            // Between the two renames.
            old = found(&self.partial().join("previous"));
        }
        assert!(
            complete || old == self.old,
            "the destination is neither old nor new"
        );
        complete
    }
}

/// Kills runs of `job` at so many points; after every second, a run is left alone.
fn kill_at(job: &Job, points: u64, seed: u64) {
    let mut numbers = Numbers(seed);
    let (mut stopped, mut placed, mut kept_some) = (0, 0, 0);
    job.reset();
    for point in 0..points {
        let (at, looks) = match numbers.below(6) {
            0 => (Point::Recorded(job.files), numbers.below(300)),
            1 => (Point::Placing, numbers.below(100)),
            2 => (Point::Placed, numbers.below(300)),
            _ => (Point::Recorded(numbers.below(job.files)), numbers.below(50)),
        };
        let child = job.command().spawn().unwrap();
        stopped += u32::from(job.kill(child, at, looks));
        if job.is_complete() {
            placed += 1;
            // Once the records begin to be deleted, the next run knows nothing of this one.
            let was_overwriting = job.old.is_some();
            let output = job.run();
            let error = String::from_utf8(output.stderr).unwrap();
            if was_overwriting {
                assert_eq!(output.status.code(), Some(0), "{error}")
            } else {
                assert!(error.is_empty() || error.contains("not empty"), "{error}")
            }
            assert!(job.is_complete());
            job.reset();
        } else if point % 2 == 1 {
            let output = job.run();
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            kept_some += u32::from(text.contains("were complete"));
            assert!(job.is_complete());
            assert!(!job.partial().exists());
            assert_eq!(names(job.workspace.path()).len(), 3);
            job.reset();
        }
    }
    println!("{stopped} of {points} stopped, {placed} after the renames, {kept_some} gone on with");
    assert!(stopped > points as u32 / 2, "only {stopped} were stopped");
    assert!(kept_some > 0, "none was gone on with");
}

#[test]
fn killed_while_it_writes_a_new_directory() {
    kill_at(&Job::new(&[], false), 40, 1);
}

#[test]
fn killed_while_it_overwrites_a_directory() {
    kill_at(&Job::new(&["--overwrite"], true), 40, 2);
}

#[test]
fn killed_while_it_overwrites_a_directory_and_sums_it() {
    kill_at(&Job::new(&["--overwrite", "--sha256"], true), 30, 3);
}

#[test]
fn killed_while_it_overwrites_a_directory_where_names_cannot_be_exchanged() {
    let mut job = Job::new(&["--overwrite"], true);
    job.exchanges = false;
    kill_at(&job, 30, 4);
}

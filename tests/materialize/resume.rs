//! Going on with what an earlier run has left.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ckptfs::Result;
use ckptfs::jobs::Progress;
use ckptfs::materialize::{Options, Summary, left_by_earlier_run, materialize};
use ckptfs::recipe::{Plan, ViewRequest};
use rustix::fs::{FlockOperation, flock};

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::{Workspace, assert_names, message, plan_by_rules};
use crate::directory::{files, flip_byte, names};

const PARTIAL: &str = ".out.ckptfs-partial";
const INDEX: &str = "model.safetensors.index.json";

pub(crate) fn shard(number: usize) -> String {
    format!("model-{number:05}-of-00004.safetensors")
}

pub(crate) fn base() -> Checkpoint {
    (1..=4).fold(Checkpoint::new(), |base, number| {
        let weight = format!("model.layers.{number}.self_attn.o_proj.weight");
        base.shard(&shard(number), [bf16(&weight, &[256, 256])])
    })
}

/// Gives up once so many bytes are written; remembers notes.
pub(crate) struct GiveUp {
    after: u64,
    done: AtomicU64,
    notes: Mutex<Vec<String>>,
}

impl GiveUp {
    fn after(bytes: u64) -> Self {
        GiveUp {
            after: bytes,
            done: AtomicU64::new(0),
            notes: Mutex::default(),
        }
    }

    pub(crate) fn never() -> Self {
        GiveUp::after(u64::MAX)
    }
}

impl Progress for GiveUp {
    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.after
    }
}

pub(crate) struct Job {
    pub(crate) workspace: Workspace,
    pub(crate) base: PathBuf,
    pub(crate) out: PathBuf,
    options: Options,
}

impl Job {
    pub(crate) fn new() -> Self {
        let workspace = Workspace::new();
        Job {
            base: workspace.write("base", &base()),
            out: workspace.path().join("out"),
            workspace,
            options: Options {
                jobs: 1,
                ..Options::default()
            },
        }
    }

    fn plan(&self) -> Plan {
        plan_by_rules(&self.base).unwrap()
    }

    pub(crate) fn run(&self, plan: &Plan, progress: &GiveUp) -> Result<Summary> {
        materialize(
            plan,
            std::slice::from_ref(&self.base),
            &self.out,
            &self.options,
            progress,
        )
    }

    /// Stops a run within the third shard: two are complete.
    fn stop_midway(&self) {
        let plan = self.plan();
        let progress = GiveUp::after(2 * plan.shards[0].len + plan.shards[0].len / 2);
        assert_names(&message(self.run(&plan, &progress)), &["interrupted"]);
        assert!(!self.out.exists());
        assert_eq!(names(&self.partial("view")), [shard(1), shard(2)]);
        let left = left_by_earlier_run(&self.out, false).unwrap();
        assert_eq!(left, self.partial(""));
    }

    fn partial(&self, path: impl AsRef<Path>) -> PathBuf {
        self.workspace
            .path()
            .canonicalize()
            .unwrap()
            .join(PARTIAL)
            .join(path)
    }

    /// Runs to the end; returns the notes and how many files were kept.
    fn finish(&self) -> (Vec<String>, usize) {
        let (plan, progress) = (self.plan(), GiveUp::never());
        let summary = self.run(&plan, &progress).unwrap();
        assert_eq!(summary.warnings, [""; 0]);
        assert!(files(&self.out) == read_all(&plan), "the bytes differ");
        assert_eq!(names(self.workspace.path()), ["base", "out"]);
        assert_eq!(left_by_earlier_run(&self.out, false), None);
        assert_eq!(progress.done.into_inner(), summary.bytes);
        (progress.notes.into_inner().unwrap(), summary.kept)
    }
}

#[test]
fn complete_files_are_kept_and_are_the_very_same() {
    let job = Job::new();
    job.stop_midway();
    let inode = |path: PathBuf| path.metadata().unwrap().ino();
    let before = [1, 2].map(|number| inode(job.partial("view").join(shard(number))));
    assert_eq!(job.finish(), (vec![], 2));
    let after = [1, 2].map(|number| inode(job.out.join(shard(number))));
    assert_eq!(before, after);
}

#[test]
fn a_run_can_be_stopped_again_and_again() {
    let job = Job::new();
    let plan = job.plan();
    let len = plan.shards[0].len;
    for complete in 1..4 {
        let progress = GiveUp::after(complete * len + len / 2);
        assert_names(&message(job.run(&plan, &progress)), &["interrupted"]);
        assert_eq!(names(&job.partial("view")).len() as u64, complete);
    }
    assert_eq!(job.finish(), (vec![], 3));
}

#[test]
fn a_complete_file_of_which_a_byte_has_changed_is_written_anew() {
    for offset in [0, 4096, 10_000] {
        let job = Job::new();
        job.stop_midway();
        flip_byte(&job.partial("view").join(shard(2)), offset);
        assert_eq!(job.finish().1, 1);
    }
}

#[test]
fn a_complete_file_of_another_length_or_none_is_written_anew() {
    let job = Job::new();
    job.stop_midway();
    let path = job.partial("view").join(shard(1));
    let len = path.metadata().unwrap().len();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len + 1)
        .unwrap();
    fs::remove_file(job.partial("view").join(shard(2))).unwrap();
    assert_eq!(job.finish().1, 0);
}

#[test]
fn records_that_were_cut_off_are_of_no_file() {
    let job = Job::new();
    job.stop_midway();
    let path = job.partial("files.jsonl");
    let records = fs::read(&path).unwrap();
    fs::write(&path, &records[..records.len() - 1]).unwrap();
    assert_eq!(job.finish().1, 1);
}

#[test]
fn a_source_that_was_changed_since_has_all_begun_anew() {
    let job = Job::new();
    job.stop_midway();
    flip_byte(&job.base.join(shard(4)), 100_000);
    let (notes, kept) = job.finish();
    assert_eq!(kept, 0);
    assert_names(
        &notes.concat(),
        &[
            PARTIAL,
            "base/",
            &shard(4),
            "was changed since",
            "starting again",
        ],
    );
}

#[test]
fn another_view_is_begun_anew() {
    let mut job = Job::new();
    job.stop_midway();
    let plan = ViewRequest::new(&job.base).plan().unwrap();
    let progress = GiveUp::never();
    let summary = job.run(&plan, &progress).unwrap();
    assert_eq!(summary.kept, 0);
    assert_names(
        &progress.notes.into_inner().unwrap().concat(),
        &["another view"],
    );
    assert!(files(&job.out) == read_all(&plan));

    // Of quantized views each format of scales is another one, though all lengths are the same.
    job.out = job.workspace.path().join("second");
    let [_, float32] = [false, true].map(|float32| {
        let format = if float32 {
            ckptfs::quant::fp8_block::ScaleFormat::Float32
        } else {
            ckptfs::quant::fp8_block::ScaleFormat::Ue8m0
        };
        let fp8 = ckptfs::ops::QuantizeParams {
            rules: Some(ckptfs::ops::RuleSet::Exact),
            scale_format: Some(format),
            ..Default::default()
        };
        let plan = crate::common::plan_fp8(&job.base, fp8).unwrap();
        let progress = GiveUp::after(if float32 {
            u64::MAX
        } else {
            5 * plan.shards[0].len / 2
        });
        let result = job.run(&plan, &progress);
        assert_eq!(result.is_ok(), float32);
        let notes = progress.notes.into_inner().unwrap().concat();
        assert_eq!(notes.contains("another view"), float32, "{notes}");
        plan
    });
    assert!(files(&job.out) == read_all(&float32));
}

#[test]
fn a_source_that_is_cut_off_midway_is_named_and_the_rest_goes_on_once_it_is_back() {
    let job = Job::new();
    let plan = job.plan();
    let path = job.base.join(shard(3));
    let (bytes, modified) = (
        fs::read(&path).unwrap(),
        path.metadata().unwrap().modified().unwrap(),
    );
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(70_000).unwrap();
    let error = message(job.run(&plan, &GiveUp::never()));
    assert_names(&error, &[&shard(3), "changed", "70000"]);
    assert!(!job.out.exists());
    fs::write(&path, bytes).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(job.finish(), (vec![], 2));
}

#[test]
fn two_runs_at_once_are_refused() {
    let job = Job::new();
    job.stop_midway();
    let lock = File::open(job.partial("lock")).unwrap();
    flock(&lock, FlockOperation::LockShared).unwrap();
    let error = message(job.run(&job.plan(), &GiveUp::never()));
    assert_names(&error, &["lock", "another process"]);
    assert_eq!(names(&job.partial("view")), [shard(1), shard(2)]);
    // Not by closing it: a child of another test could have it for a moment.
    flock(&lock, FlockOperation::Unlock).unwrap();
    assert_eq!(job.finish(), (vec![], 2));
}

#[test]
fn what_a_run_has_moved_aside_is_moved_back() {
    let mut job = Job::new();
    job.stop_midway();
    // As if it had been stopped between two renames.
    fs::create_dir(job.partial("previous")).unwrap();
    fs::write(job.partial("previous/mine"), "precious").unwrap();
    let error = message(job.run(&job.plan(), &GiveUp::never()));
    assert_names(&error, &["out", "not empty", "use overwrite"]);
    assert_eq!(names(&job.out), ["mine"]);
    job.options.overwrite = true;
    assert_eq!(job.finish(), (vec![], 2));
}

#[test]
fn with_links_only_what_is_not_linked_is_kept() {
    let mut job = Job::new();
    job.options.hardlink = true;
    let plan = ViewRequest::new(&job.base).plan().unwrap();
    let shards: u64 = plan.shards.iter().map(|shard| shard.len).sum();
    let error = message(job.run(&plan, &GiveUp::after(shards + 1)));
    assert_names(&error, &["interrupted"]);
    let summary = job.run(&plan, &GiveUp::never()).unwrap();
    assert_eq!(summary.linked, 4);
    assert!(summary.kept < 3, "index and config.json at most");
    assert!(files(&job.out) == read_all(&plan));
}

#[test]
fn weights_alone_go_on_too() {
    let mut job = Job::new();
    job.options.weights_only = true;
    fs::create_dir(&job.out).unwrap();
    fs::write(
        job.out.join("config.json"),
        crate::common::checkpoint::CONFIG,
    )
    .unwrap();
    let plan = ViewRequest::new(&job.base).plan().unwrap();
    let len = plan.shards[0].len;
    message(job.run(&plan, &GiveUp::after(5 * len / 2)));
    assert_eq!(names(&job.out), [".ckptfs-partial", "config.json"]);
    let left = left_by_earlier_run(&job.out, true).unwrap();
    assert_eq!(left, job.out.join(".ckptfs-partial"));
    // As if it had been stopped once the first was in place.
    let view = left.join("view");
    fs::rename(view.join(shard(1)), job.out.join(shard(1))).unwrap();
    fs::write(left.join("placing.json"), r#"{"inode": 0}"#).unwrap();
    let progress = GiveUp::never();
    let summary = job.run(&plan, &progress).unwrap();
    assert_eq!((summary.files, summary.kept), (5, 3));
    let mut expected = read_all(&plan);
    assert!(expected.contains_key(Path::new(INDEX)));
    expected.insert(
        "config.json".into(),
        crate::common::checkpoint::CONFIG.into(),
    );
    assert!(files(&job.out) == expected);
}

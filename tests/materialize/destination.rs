//! Where `materialize` writes to, and that it leaves either everything or nothing there.

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ckptfs::Result;
use ckptfs::jobs::Progress;
use ckptfs::materialize::{Options, Summary, materialize};
use ckptfs::ops::QuantizeParams;
use ckptfs::recipe::{Plan, ViewRequest};
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, bf16, of_values};
use crate::common::readback::read_all;
use crate::common::{Workspace, assert_names, message, plan_by_rules, plan_fp8};
use crate::directory::{files, names};

const WEIGHT: &str = "model.layers.0.self_attn.o_proj.weight";

fn base() -> Checkpoint {
    Checkpoint::single([bf16(WEIGHT, &[256, 256]), bf16("model.norm.weight", &[256])])
}

/// Its last tensor cannot be quantized.
fn broken_base() -> Checkpoint {
    let mut values = vec![1.0; 256 * 128];
    values[200 * 128 + 17] = f32::NAN;
    Checkpoint::single([
        bf16(WEIGHT, &[256, 256]),
        of_values(
            "model.layers.1.self_attn.o_proj.weight",
            Dtype::BF16,
            &[256, 128],
            &values,
        ),
    ])
}

fn planned(workspace: &Workspace, checkpoint: &Checkpoint) -> (Plan, Vec<PathBuf>) {
    let base = workspace.write("base", checkpoint);
    (plan_by_rules(&base).unwrap(), vec![base])
}

fn overwrite() -> Options {
    Options {
        overwrite: true,
        ..Options::default()
    }
}

/// What a run leaves for the next one to go on with, if a file was complete.
const PARTIAL: &str = ".out.ckptfs-partial";

/// The names in the workspace, apart from [`PARTIAL`].
fn names_but_partial(workspace: &Workspace) -> Vec<String> {
    let mut names = names(workspace.path());
    names.retain(|name| name != PARTIAL);
    names
}

/// Tries to write and asserts that it failed and that nothing in the workspace has changed.
fn assert_refused(
    workspace: &Workspace,
    attempt: impl FnOnce() -> Result<Summary>,
    parts: &[&str],
) {
    let before = files(workspace.path());
    let text = message(attempt());
    assert_names(&text, parts);
    let mut after = files(workspace.path());
    after.retain(|path, _| !path.starts_with(PARTIAL));
    assert!(after == before, "changed after {text:?}");
    let hidden = |name: &String| name.starts_with('.');
    assert!(!names_but_partial(workspace).iter().any(hidden));
}

#[test]
fn parents_of_the_destination_are_made() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let out = workspace.path().join("new/newer/out");
    materialize(&plan, &sources, &out, &Options::default(), &()).unwrap();
    assert_eq!(files(&out), read_all(&plan));
    assert_eq!(names(&workspace.path().join("new/newer")), ["out"]);
}

#[test]
fn an_empty_directory_is_written_to() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let out = workspace.path().join("out");
    fs::create_dir(&out).unwrap();
    materialize(&plan, &sources, &out, &Options::default(), &()).unwrap();
    assert_eq!(files(&out), read_all(&plan));
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_alone() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let out = workspace.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "precious").unwrap();
    let options = Options::default();
    assert_refused(
        &workspace,
        || materialize(&plan, &sources, &out, &options, &()),
        &["out", "not empty", "use overwrite"],
    );
}

#[test]
fn with_overwrite_the_view_takes_the_place_of_the_whole_directory() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let out = workspace.path().join("out");
    fs::create_dir_all(out.join("deep/er")).unwrap();
    fs::write(out.join("deep/er/old"), "old").unwrap();
    fs::write(out.join("config.json"), "old").unwrap();
    let summary = materialize(&plan, &sources, &out, &overwrite(), &()).unwrap();
    assert_eq!(summary.warnings, [""; 0]);
    assert_eq!(files(&out), read_all(&plan));
    assert!(!out.join("deep").exists());
    assert_eq!(names(workspace.path()), ["base", "out"]);
}

#[test]
fn a_link_to_a_directory_stays_a_link_to_what_is_written() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let real = workspace.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("old"), "old").unwrap();
    let link = workspace.path().join("link");
    symlink("real", &link).unwrap();
    materialize(&plan, &sources, &link, &overwrite(), &()).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(files(&real), read_all(&plan));
}

#[test]
fn a_file_is_refused_as_destination() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let out = workspace.path().join("out");
    fs::write(&out, "a file").unwrap();
    assert_refused(
        &workspace,
        || materialize(&plan, &sources, &out, &overwrite(), &()),
        &["out", "not a directory"],
    );
}

#[test]
fn the_base_itself_is_refused_under_any_name() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    symlink("base", workspace.path().join("link")).unwrap();
    for name in ["base", "base/.", "base/../base", "link", "link/../base"] {
        let out = workspace.path().join(name);
        assert_refused(
            &workspace,
            || materialize(&plan, &sources, &out, &overwrite(), &()),
            &["this is", "base"],
        );
    }
}

#[test]
fn a_directory_inside_the_base_is_refused() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    symlink("base", workspace.path().join("link")).unwrap();
    for name in ["base/out", "base/new/out", "link/out"] {
        let out = workspace.path().join(name);
        assert_refused(
            &workspace,
            || materialize(&plan, &sources, &out, &Options::default(), &()),
            &["is inside", "base"],
        );
    }
}

#[test]
fn a_directory_that_holds_the_base_is_refused() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    assert_refused(
        &workspace,
        || materialize(&plan, &sources, workspace.path(), &overwrite(), &()),
        &["holds", "base"],
    );
}

#[test]
fn a_reference_is_refused() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &base());
    let scales = bf16(&format!("{WEIGHT}_scale_inv"), &[2, 2]);
    let reference = workspace.write("reference", &Checkpoint::single([scales]));
    let plan = plan_fp8(
        &base,
        QuantizeParams {
            references: vec![reference.clone().into()],
            ..QuantizeParams::default()
        },
    )
    .unwrap();
    let sources = [base, reference.clone()];
    assert_refused(
        &workspace,
        || materialize(&plan, &sources, &reference, &overwrite(), &()),
        &["this is", "reference"],
    );
}

#[test]
fn a_directory_that_holds_what_a_source_links_to_is_refused() {
    let workspace = Workspace::new();
    let blobs = workspace.write("cache/blobs", &base());
    let snapshot = workspace.write("snapshot", &base());
    let shard = snapshot.join("model.safetensors");
    fs::remove_file(&shard).unwrap();
    symlink(blobs.join("model.safetensors"), &shard).unwrap();
    for plan in [
        ViewRequest::new(&snapshot).plan().unwrap(),
        plan_by_rules(&snapshot).unwrap(),
    ] {
        for out in ["cache", "cache/blobs"] {
            let out = workspace.path().join(out);
            let sources = std::slice::from_ref(&snapshot);
            assert_refused(
                &workspace,
                || materialize(&plan, sources, &out, &overwrite(), &()),
                &[
                    "holds",
                    "blobs/model.safetensors",
                    "snapshot/model.safetensors",
                ],
            );
        }
    }
}

#[test]
fn a_failure_midway_leaves_no_destination() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &broken_base());
    let out = workspace.path().join("out");
    for jobs in [1, 4] {
        let options = Options {
            jobs,
            ..Options::default()
        };
        assert_refused(
            &workspace,
            || materialize(&plan, &sources, &out, &options, &()),
            &[
                "model.layers.1.self_attn.o_proj.weight",
                "NaN",
                "row 200",
                "column 17",
            ],
        );
        assert_eq!(names_but_partial(&workspace), ["base"]);
    }
}

#[test]
fn a_failure_midway_leaves_what_was_to_be_overwritten() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &broken_base());
    let out = workspace.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "precious").unwrap();
    assert_refused(
        &workspace,
        || materialize(&plan, &sources, &out, &overwrite(), &()),
        &["NaN"],
    );
    assert_eq!(names_but_partial(&workspace), ["base", "out"]);
}

#[test]
fn a_source_that_was_changed_after_planning_is_an_error_and_nothing_is_written() {
    for fp8 in [false, true] {
        let workspace = Workspace::new();
        let base = workspace.write("base", &base());
        let plan = if fp8 {
            plan_by_rules(&base).unwrap()
        } else {
            ViewRequest::new(&base).plan().unwrap()
        };
        let shard = base.join("model.safetensors");
        let mut bytes = fs::read(&shard).unwrap();
        bytes.push(0);
        fs::write(&shard, bytes).unwrap();
        let out = workspace.path().join("out");
        // A file that another thread completes meanwhile would stay in the partial directory.
        let options = Options {
            jobs: 1,
            ..Options::default()
        };
        assert_refused(
            &workspace,
            || materialize(&plan, &[base], &out, &options, &()),
            &["model.safetensors", "changed"],
        );
        assert_eq!(names(workspace.path()), ["base"]);
    }
}

/// Gives up, or panics, once some bytes are written.
struct GiveUp {
    after: u64,
    panic: bool,
    done: AtomicU64,
}

impl GiveUp {
    fn halfway(plan: &Plan, panic: bool) -> Self {
        GiveUp {
            after: plan.shards[0].len / 2,
            panic,
            done: AtomicU64::new(0),
        }
    }
}

impl Progress for GiveUp {
    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        assert!(!self.panic || done < self.after, "planned");
    }

    fn cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.after
    }
}

#[test]
fn a_cancelled_job_leaves_no_destination() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let out = workspace.path().join("out");
    let progress = GiveUp::halfway(&plan, false);
    assert_refused(
        &workspace,
        || materialize(&plan, &sources, &out, &Options::default(), &progress),
        &["interrupted"],
    );
    assert!(progress.done.into_inner() > 0, "it was midway");
    assert_eq!(names_but_partial(&workspace), ["base"]);
}

#[test]
fn a_panic_leaves_no_destination() {
    for jobs in [1, 4] {
        let workspace = Workspace::new();
        let (plan, sources) = planned(&workspace, &base());
        let out = workspace.path().join("out");
        let options = Options {
            jobs,
            ..Options::default()
        };
        let progress = GiveUp::halfway(&plan, true);
        let attempt = || materialize(&plan, &sources, &out, &options, &progress);
        let panic = catch_unwind(AssertUnwindSafe(attempt));
        assert!(panic.is_err());
        assert_eq!(names_but_partial(&workspace), ["base"]);
    }
}

#[test]
fn a_relative_destination_that_goes_through_nothing_is_refused() {
    let workspace = Workspace::new();
    let (plan, sources) = planned(&workspace, &base());
    let out: &Path = &workspace.path().join("nowhere/../base");
    assert_refused(
        &workspace,
        || materialize(&plan, &sources, out, &overwrite(), &()),
        &["nowhere/../base", "does not exist"],
    );
}

//! A view that is written for somebody who uses its files meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ckptfs::error::Result;
use ckptfs::materialize::{Options, Persisting, Watcher};
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::view::EntryId;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback;

/// What was told: where each file was when it was complete, and whether that was before all were moved.
#[derive(Default)]
struct Told {
    complete: Mutex<BTreeMap<EntryId, PathBuf>>,
    dies_once_placed: bool,
}

impl Watcher for Told {
    fn complete(&self, entry: EntryId, path: &Path) {
        assert!(path.is_file(), "{}", path.display());
        self.complete.lock().unwrap().insert(entry, path.to_owned());
    }

    fn placed(&self, _: &Path, place: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        place()?;
        assert!(!self.dies_once_placed, "as by a kill");
        Ok(())
    }
}

fn view(workspace: &Workspace) -> (Arc<Plan>, Vec<PathBuf>) {
    let names = ["a", "b"].map(|name| format!("model.layers.0.{name}_proj.weight"));
    let base = Checkpoint::new()
        .shard(
            "model-00001-of-00002.safetensors",
            [bf16(&names[0], &[256, 384])],
        )
        .shard(
            "model-00002-of-00002.safetensors",
            [bf16(&names[1], &[128, 200])],
        )
        .aux("tokenizer/vocab.json", "{}");
    let base = workspace.write("base", &base);
    let request = ViewRequest::new(&base)
        .with(|asked| asked.quantize.rules = Some(ckptfs::ops::RuleSet::Exact));
    (Arc::new(request.plan().unwrap()), vec![base])
}

fn begin(plan: &Arc<Plan>, inputs: &[PathBuf], out: &Path) -> Persisting {
    Persisting::begin(plan.clone(), inputs, out, Options::default(), &()).unwrap()
}

/// Asserts that `told` has every file of the view, with its bytes.
fn assert_has_all(told: &Told, plan: &Plan) {
    let expected = readback::read_all(plan);
    let complete = told.complete.lock().unwrap();
    assert_eq!(complete.len(), expected.len());
    for (entry, path) in &*complete {
        let name = plan.view.path(*entry);
        assert!(
            fs::read(path).unwrap() == expected[&name],
            "{}",
            name.display()
        );
    }
}

#[test]
fn each_file_is_told_of_when_it_is_complete_and_a_finished_directory_at_once() {
    let workspace = Workspace::new();
    let (plan, inputs) = view(&workspace);
    let out = workspace.path().join("out");
    let first = begin(&plan, &inputs, &out);
    assert!(!first.is_finished());
    let staging = first.staging();
    let bytes: u64 = readback::read_all(&plan)
        .values()
        .map(|file| file.len() as u64)
        .sum();
    assert_eq!(first.bytes_left(), bytes);
    let told = Told::default();
    first.run(&(), &told).unwrap();
    assert_eq!(
        told.complete.lock().unwrap().len(),
        readback::read_all(&plan).len()
    );
    assert!(
        told.complete
            .lock()
            .unwrap()
            .values()
            .all(|path| path.starts_with(&staging))
    );
    assert!(!staging.exists());

    let again = begin(&plan, &inputs, &out);
    assert!(again.is_finished());
    let told = Told::default();
    again.run(&(), &told).unwrap();
    assert_has_all(&told, &plan);
}

#[test]
fn a_run_that_was_stopped_right_after_all_was_moved_is_gone_on_with() {
    let workspace = Workspace::new();
    let (plan, inputs) = view(&workspace);
    let out = workspace.path().join("out");
    let dies = Told {
        dies_once_placed: true,
        ..Told::default()
    };
    let killed = begin(&plan, &inputs, &out);
    let staging = killed.staging();
    catch_unwind(AssertUnwindSafe(|| killed.run(&(), &dies))).unwrap_err();
    assert!(out.is_dir() && staging.join("placing.json").exists());

    let told = Told::default();
    begin(&plan, &inputs, &out).run(&(), &told).unwrap();
    assert_has_all(&told, &plan);
    assert!(!staging.exists());
    assert!(begin(&plan, &inputs, &out).is_finished());
}

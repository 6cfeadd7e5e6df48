//! Every single change to the destination's disk fails once, wherever it is: creating, writing,
//! syncing, renaming, removing. The disk is a mount, so this needs `/dev/fuse` and root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::Result;
use ckptfs::materialize::{Options, Summary, materialize};
use ckptfs::recipe::Plan;
use rustix::process::geteuid;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::{Workspace, plan_by_rules};
use crate::directory::{files, names};
use crate::failing_disk::FailingDisk;

struct Case {
    workspace: Workspace,
    plan: Plan,
    expected: BTreeMap<PathBuf, Vec<u8>>,
    options: Options,
}

impl Case {
    fn new(options: Options) -> Self {
        let workspace = Workspace::new();
        let weight = |i: usize| bf16(&format!("model.layers.{i}.mlp.up_proj.weight"), &[128, 128]);
        let checkpoint = Checkpoint::new()
            .shard("model-00001-of-00002.safetensors", [weight(0)])
            .shard("model-00002-of-00002.safetensors", [weight(1)])
            .aux("tokenizer/vocab.json", "{}");
        let base = workspace.write("base", &checkpoint);
        let plan = plan_by_rules(&base).unwrap();
        let expected = read_all(&plan);
        Case {
            workspace,
            plan,
            expected,
            options,
        }
    }

    fn run(&self, out: &Path) -> Result<Summary> {
        materialize(&self.plan, &[], out, &self.options, &())
    }

    /// Has change after change fail, until there is none left to fail; `old` is what the
    /// destination holds before, if anything.
    fn fail_everywhere(&self, old: Option<&str>) {
        if !geteuid().is_root() {
            println!("not tested: only root can mount the disk that fails");
            return;
        }
        let (real, mountpoint) = (
            self.workspace.path().join("real"),
            self.workspace.path().join("disk"),
        );
        fs::create_dir(&real).unwrap();
        fs::create_dir(&mountpoint).unwrap();
        let disk = FailingDisk::new(&real, &mountpoint);
        let out = mountpoint.join("out");
        let old: BTreeMap<PathBuf, Vec<u8>> = old
            .iter()
            .map(|text| (PathBuf::from("old.json"), text.as_bytes().to_vec()))
            .collect();
        let mut failures = 0;
        for changes in 0.. {
            for name in names(&real) {
                fs::remove_dir_all(real.join(name)).unwrap();
            }
            for (name, content) in &old {
                fs::create_dir(real.join("out")).unwrap();
                fs::write(real.join("out").join(name), content).unwrap();
            }
            disk.fail_after(changes);
            let result = self.run(&out);
            let failed = disk.heal();
            match &result {
                Ok(_) => assert_eq!(self.shown(&out), self.expected, "change {changes}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("disk") && text.contains("os error 5"),
                        "{text}"
                    );
                    failures += 1;
                    let now = self.shown(&out);
                    assert!(
                        now == old || now == self.expected,
                        "change {changes}: {:?}",
                        now.keys()
                    );
                }
            }
            if result.is_err() && self.shown(&out) == old {
                self.run(&out).unwrap();
                assert_eq!(
                    self.shown(&out),
                    self.expected,
                    "again after change {changes}"
                );
            }
            if !failed {
                result.unwrap();
                break;
            }
        }
        assert!(failures > 20, "{failures}");
    }

    /// What the destination holds, which may be nothing.
    fn shown(&self, out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        if out.exists() {
            files(out)
        } else {
            BTreeMap::new()
        }
    }
}

#[test]
fn a_new_directory_is_there_complete_or_not_at_all() {
    Case::new(Options {
        jobs: 1,
        ..Options::default()
    })
    .fail_everywhere(None);
}

#[test]
fn a_directory_that_is_replaced_is_the_old_one_or_the_new_one() {
    Case::new(Options {
        jobs: 1,
        overwrite: true,
        sha256: false,
        ..Options::default()
    })
    .fail_everywhere(Some("{\"old\": true}"));
}

//! A source whose disk fails midway. The disk is a mount of another view, so this needs root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;

use crate::common::checkpoint::TensorData;
use crate::common::readback::read_all;
use crate::common::{assert_names, message};
use crate::directory::files;
use crate::resume::{GiveUp, Job, base, shard};

/// A mount of `base` as it is, taken away when dropped.
struct Mounted(PathBuf);

impl Mounted {
    const BINARY: &str = env!("CARGO_BIN_EXE_ckptfs");

    fn new(base: &Path, at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let mounted = Mounted(at);
        let mut command = Command::new(Self::BINARY);
        command.args([
            "mount",
            "--no-passthrough",
            "--readahead",
            "128KiB",
            "--base",
        ]);
        let output = command.arg(base).arg(&mounted.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new(Self::BINARY)
            .arg("unmount")
            .arg(&self.0)
            .output();
        assert!(unmounted.is_ok_and(|output| output.status.success()));
    }
}

#[test]
fn a_source_whose_disk_fails_is_named_and_the_rest_goes_on_once_it_is_repaired() {
    let mut job = Job::new();
    let last = TensorData::new("last.weight", Dtype::BF16, &[4096, 4096], vec![1; 32 << 20]);
    let mut base = base();
    base.shards[3].tensors = vec![last];
    let base = job.workspace.write("large", &base);
    // A mount gives EIO for what its own source no longer has.
    let mounted = Mounted::new(&base, job.workspace.path().join("mounted"));
    job.base = mounted.0.clone();
    let plan = ViewRequest::new(&job.base).plan().unwrap();
    let path = base.join(shard(4));
    let (bytes, modified) = (
        fs::read(&path).unwrap(),
        path.metadata().unwrap().modified().unwrap(),
    );
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(1 << 20).unwrap();

    let error = message(job.run(&plan, &GiveUp::never()));
    assert_names(&error, &["mounted/", &shard(4), "Input/output error"]);
    assert!(!job.out.exists());

    fs::write(&path, bytes).unwrap();
    file.set_modified(modified).unwrap();
    let summary = job.run(&plan, &GiveUp::never()).unwrap();
    assert!(summary.kept >= 3, "{} kept", summary.kept);
    assert!(files(&job.out) == read_all(&plan), "the bytes differ");
}

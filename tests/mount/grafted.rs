//! Mounts of a view with grafted tensors.

use std::fs;
use std::path::PathBuf;

use ckptfs::fast_paths::FastPath;
use ckptfs::ops::GraftRequest;
use ckptfs::recipe::ViewRequest;
use serde_json::Value;

use crate::common::checkpoint::{Checkpoint, tensor};
use crate::common::readback::read_all;
use crate::fixture::{Fixture, assert_same, ckptfs, read_tree, stderr};

/// A checkpoint that has the norm of the fixture's base with other numbers, and its path.
fn norm(fixture: &Fixture) -> PathBuf {
    let path = fixture.path("graft");
    let other = tensor("model.norm.weight", safetensors::Dtype::BF16, &[96], 99);
    Checkpoint::single([other]).write(&path);
    path
}

#[test]
fn a_shard_without_a_grafted_tensor_is_still_the_source_file() {
    let fixture = Fixture::new();
    let graft = norm(&fixture);
    let source = graft.clone().into();
    let request = ViewRequest::new(&fixture.base).with(|asked| {
        asked.graft.grafts.push(GraftRequest {
            source,
            names: None,
        })
    });
    let plan = request.plan().unwrap();
    let whole: Vec<bool> = plan.shards.iter().map(|s| s.whole_file.is_some()).collect();
    assert_eq!(whole, [true, false]);

    let mut mount = ckptfs("mount");
    mount
        .arg("--base")
        .arg(&fixture.base)
        .arg("--graft")
        .arg(&graft);
    let output = mount.arg(&fixture.mountpoint).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_same(&read_tree(&fixture.mountpoint), &read_all(&plan));
    let base = |i| format!("model-0000{i}-of-00002.safetensors");
    let read = |i| fs::read(fixture.mountpoint.join(base(i))).unwrap();
    assert!(read(1) == fs::read(fixture.base.join(base(1))).unwrap());
    assert!(read(2) != fs::read(fixture.base.join(base(2))).unwrap());
    if rustix::process::geteuid().is_root() && FastPath::Passthrough.is_enabled() {
        let stats = fs::read(fixture.mountpoint.join(".ckptfs/stats.json")).unwrap();
        let stats: Value = serde_json::from_slice(&stats).unwrap();
        assert!(
            stats["passthrough"]["openings"].as_u64() > Some(0),
            "{stats}"
        );
    }
    assert!(fixture.unmount(&[]).status.success());
}

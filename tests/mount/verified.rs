//! `verify` of a mount reads next to nothing.

use std::fs;
use std::path::Path;

use crate::common::assert_names;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::fixture::{Fixture, Kind, ckptfs, stderr};

/// Runs `ckptfs verify`; standard output and standard error.
fn verify(directory: &Path) -> (String, String) {
    let output = ckptfs("verify").arg(directory).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    (out, stderr(&output))
}

/// Tiles that the mount has computed.
fn computed(mountpoint: &Path) -> u64 {
    let stats = fs::read(mountpoint.join(".ckptfs/stats.json")).unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
    let tiles = &stats["tiles"]["computed"];
    tiles.as_u64().unwrap_or_else(|| panic!("{stats}"))
}

#[test]
fn scales_that_the_mount_computes_are_not_read() {
    let fixture = Fixture::new();
    // The kernel reads some of a file ahead of its header; this is many times as much.
    let weight = bf16("model.layers.0.self_attn.o_proj.weight", &[2048, 4096]);
    Checkpoint::single([weight]).write(&fixture.path("large"));
    let mut mount = ckptfs("mount");
    mount.args(["--fp8", "--readahead", "0", "--base"]);
    let output = mount.args([&fixture.path("large"), &fixture.mountpoint]);
    let output = output.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let link = fixture.path("link");
    std::os::unix::fs::symlink(&fixture.mountpoint, &link).unwrap();
    for directory in [&fixture.mountpoint, &link] {
        let (out, err) = verify(directory);
        let computed = "computes the scales of 1 tensor as powers of two";
        assert_names(&out, &[computed, "no problems found"]);
        assert_eq!(err, "");
    }
    const TILES: u64 = 16;
    let few = computed(&fixture.mountpoint);
    assert!(few <= TILES / 4, "{few} tiles");
    fs::read(fixture.mountpoint.join("model.safetensors")).unwrap();
    assert_eq!(computed(&fixture.mountpoint), TILES);
}

#[test]
fn scales_that_the_mount_passes_through_are_read() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let shown = fixture.path("shown");
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg("-r").args([&fixture.mountpoint, &shown]).status();
    assert!(copied.unwrap().success());
    let output = fixture.unmount(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let scales = fixture.plan(Kind::PatchedFp8).report.count("quantized");

    let mut mount = ckptfs("mount");
    mount.arg("--base").arg(&shown).arg(&fixture.mountpoint);
    let output = mount.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let (out, err) = verify(&fixture.mountpoint);
    assert_names(&out, &["no problems found"]);
    assert!(!out.contains("were not read"), "{out}");
    assert_names(&err, &[&format!("the scales of {scales} tensors")]);
}

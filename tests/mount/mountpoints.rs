//! Which directories a view can be mounted on, and which never.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::fixture::{Fixture, Kind, assert_refused, assert_same, is_mounted, read_tree, stderr};

/// Puts something into the directory that is to be mounted on.
fn fill(fixture: &Fixture) {
    fs::write(fixture.mountpoint.join("mine"), "mine").unwrap();
}

#[test]
fn a_directory_that_is_not_empty_is_hidden_with_nonempty_and_untouched_afterwards() {
    let fixture = Fixture::new();
    fill(&fixture);
    let output = fixture.try_mount(Kind::PatchedFp8, &fixture.mountpoint, &[]);
    assert_refused(&output, &["not empty", "--nonempty"]);
    fixture.mount(Kind::PatchedFp8, &["--nonempty"]);
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::PatchedFp8),
    );
    assert!(fixture.unmount(&["--lazy"]).status.success());
    let left = read_tree(&fixture.mountpoint);
    assert_eq!(left.len(), 1);
    assert_eq!(left[Path::new("mine")], b"mine");
}

#[test]
fn a_directory_that_is_empty_may_be_mounted_on_with_nonempty_too() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &["--nonempty"]);
}

#[test]
fn a_file_is_not_mounted_on_with_nonempty_either() {
    let fixture = Fixture::new();
    let file = fixture.path("file");
    fs::write(&file, "").unwrap();
    let output = fixture.try_mount(Kind::Patched, &file, &["--nonempty"]);
    assert_refused(&output, &["not a directory"]);
}

#[test]
fn no_source_is_mounted_over_even_with_nonempty() {
    let fixture = Fixture::new();
    for (mountpoint, reason) in [
        (fixture.base.clone(), "is a source"),
        (fixture.extra.clone(), "is a source"),
        (fixture.base.join("tokenizer"), "is inside a source"),
        (fixture.path("."), "would hide a source"),
    ] {
        let output = fixture.try_mount(Kind::Patched, &mountpoint, &["--nonempty"]);
        assert_refused(&output, &[reason, "mount elsewhere"]);
        assert!(!is_mounted(&mountpoint));
    }
}

#[test]
fn what_a_link_of_a_source_leads_to_is_not_mounted_over_even_with_nonempty() {
    let fixture = Fixture::new();
    let blobs = fixture.path("blobs");
    fs::create_dir(&blobs).unwrap();
    for (name, blob) in [
        ("model-00001-of-00002.safetensors", "abc"),
        ("README.md", "def"),
    ] {
        let source = fixture.base.join(name);
        let blob = blobs.join(blob);
        fs::rename(&source, &blob).unwrap();
        symlink(&blob, &source).unwrap();
    }
    let output = fixture.try_mount(Kind::Patched, &blobs, &["--nonempty"]);
    let hidden = blobs.to_str().unwrap();
    assert_refused(&output, &["would hide a source of this view", hidden]);
    assert!(!is_mounted(&blobs));
}

#[test]
fn no_mount_is_mounted_over_with_nonempty() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let again = || fixture.try_mount(Kind::PatchedFp8, &fixture.mountpoint, &["--nonempty"]);
    assert_refused(&again(), &["already mounted"]);
    assert!(fixture.unmount(&[]).status.success());

    // At the mountpoint, and below it.
    for name in [".", "inside"] {
        let inside = fixture.mountpoint.join(name);
        fs::create_dir_all(&inside).unwrap();
        let inside = inside.canonicalize().unwrap();
        let flags = MountFlags::empty();
        rustix::mount::mount("none", &inside, "tmpfs", flags, None).unwrap();
        fs::write(inside.join("file"), "").unwrap();
        let output = again();
        rustix::mount::unmount(&inside, UnmountFlags::empty()).unwrap();
        assert_refused(&output, &["hide another mount", inside.to_str().unwrap()]);
    }
}

#[test]
fn a_dead_mount_that_is_not_ours_is_left_alone() {
    let fixture = Fixture::new();
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let descriptor = device.as_raw_fd();
    let data = format!("fd={descriptor},rootmode=40755,user_id=0,group_id=0");
    let (data, flags) = (CString::new(data).unwrap(), MountFlags::empty());
    rustix::mount::mount("it", &fixture.mountpoint, "fuse.other", flags, &*data).unwrap();
    drop(device);
    let dead = fixture.mountpoint.metadata().unwrap_err();
    assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    for more in [&[][..], &["--nonempty"]] {
        let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, more);
        assert_refused(&output, &[fixture.mountpoint.to_str().unwrap()]);
    }
    for more in [&[][..], &["--lazy"]] {
        assert_refused(&fixture.unmount(more), &["fuse.other", "left alone"]);
    }
    assert!(fixture.is_mounted());
}

#[test]
fn a_dead_mount_of_ours_on_a_full_directory_is_cleared_and_the_directory_stays_protected() {
    let fixture = Fixture::new();
    fill(&fixture);
    fixture.mount(Kind::Patched, &["--nonempty"]);
    let process = fixture.serving_process();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    crate::fixture::eventually("the mount is dead", || {
        rustix::fs::statvfs(&fixture.mountpoint).is_err()
    });
    let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &[]);
    assert_refused(&output, &["not empty", "--nonempty"]);
    assert!(!fixture.is_mounted(), "the dead mount went");
    let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &["--nonempty"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

//! What `ls` and `stat` see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::fixture::{Fixture, Kind};

/// The inode of every entry below `directory`.
fn inodes(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut inodes = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        inodes.insert(path.clone(), path.metadata().unwrap().ino());
        if path.is_dir() {
            pending.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    inodes
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

#[test]
fn sizes_are_exact_before_anything_is_read() {
    for kind in [Kind::Patched, Kind::PatchedFp8] {
        let fixture = Fixture::new();
        fixture.mount(kind, &[]);
        for (_, path, content) in fixture.plan(kind).view.files() {
            let metadata = fixture.mountpoint.join(&path).metadata().unwrap();
            assert_eq!(metadata.len(), content.len(), "{}", path.display());
            assert_eq!(metadata.blocks(), content.len().div_ceil(512));
            assert_eq!(metadata.nlink(), 1);
        }
    }
}

#[test]
fn modes_are_those_of_the_sources_without_their_write_bits() {
    let fixture = Fixture::new();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(&fixture.base.join("README.md"), 0o640).unwrap();
    mode(&fixture.base.join("empty.txt"), 0o775).unwrap();
    mode(&fixture.base.join("tokenizer"), 0o770).unwrap();
    fixture.mount(Kind::Patched, &[]);
    let mode = |name: &str| fixture.mountpoint.join(name).metadata().unwrap().mode();
    assert_eq!(mode("README.md"), libc::S_IFREG | 0o440);
    assert_eq!(mode("empty.txt"), libc::S_IFREG | 0o555);
    assert_eq!(mode("tokenizer"), libc::S_IFDIR | 0o550);
    assert_eq!(mode("model.safetensors.index.json") & 0o222, 0);
    assert_eq!(mode(".") & 0o222, 0);
}

#[test]
fn other_users_are_let_in_only_when_allowed_and_only_as_far_as_the_modes_allow() {
    for allowed in [false, true] {
        let fixture = Fixture::new();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        mode(&fixture.path(""), 0o755);
        mode(&fixture.base.join("README.md"), 0o600);
        let more: &[&str] = if allowed { &["--allow-other"] } else { &[] };
        fixture.mount(Kind::PatchedFp8, more);
        let reads = |user: &str, name: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "cat"]);
            let output = command.arg(fixture.mountpoint.join(name)).output().unwrap();
            output.status.success()
        };
        assert!(reads("0", "config.json") && reads("0", "README.md"));
        assert_eq!(reads("65534", "config.json"), allowed);
        assert!(!reads("65534", "README.md"));
    }
}

#[test]
fn times_are_those_of_the_sources_to_the_nanosecond_also_before_1970() {
    let fixture = Fixture::new();
    set_mtime(&fixture.base.join("README.md"), 1_000_000_000, 123_456_789);
    set_mtime(&fixture.base.join("empty.txt"), -2, 500_000_000);
    set_mtime(&fixture.base.join("tokenizer"), 7, 1);
    fixture.mount(Kind::Patched, &[]);
    let mtime = |name: &str| {
        let metadata = fixture.mountpoint.join(name).metadata().unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!(mtime("README.md"), (1_000_000_000, 123_456_789));
    assert_eq!(mtime("empty.txt"), (-2, 500_000_000));
    assert_eq!(mtime("tokenizer"), (7, 1));
}

#[test]
fn inodes_are_unique_and_the_same_at_every_mount_of_the_view() {
    let fixture = Fixture::new();
    let seen: Vec<_> = (0..2)
        .map(|_| {
            fixture.mount(Kind::PatchedFp8, &[]);
            let inodes = inodes(&fixture.mountpoint);
            assert!(fixture.unmount(&["--lazy"]).status.success());
            inodes
        })
        .collect();
    assert_eq!(seen[0], seen[1]);
    let unique: BTreeSet<u64> = seen[0].values().copied().collect();
    assert_eq!(unique.len(), seen[0].len());
}

#[test]
fn a_large_directory_is_listed_whole_and_each_name_once() {
    let fixture = Fixture::new();
    let names: Vec<String> = (0..3000)
        .map(|i| format!("a file with number {i:05}"))
        .collect();
    let directory = fixture.base.join("many");
    fs::create_dir(&directory).unwrap();
    for name in &names {
        fs::write(directory.join(name), name).unwrap();
    }
    fixture.mount(Kind::Patched, &[]);
    // Names alone, then with attributes.
    for arguments in [&["-1U"][..], &["-1U", "--size"]] {
        let mut ls = Command::new("ls");
        let output = ls
            .args(arguments)
            .arg(fixture.mountpoint.join("many"))
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| Some(&line[line.find("a file")?..]));
        assert_eq!(lines.collect::<Vec<_>>(), names);
    }
}

#[test]
fn directories_count_their_subdirectories_as_links() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let links = |name: &str| fixture.mountpoint.join(name).metadata().unwrap().nlink();
    assert_eq!(links("."), 3);
    assert_eq!(links("tokenizer"), 3);
    assert_eq!(links("tokenizer/deep"), 2);
}

#[test]
fn names_that_are_not_there_are_not_found() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    for name in [
        "no such file",
        "README.md ",
        "tokenizer/no",
        "README.md/no",
        "model",
    ] {
        let error = fixture.mountpoint.join(name).metadata().unwrap_err();
        let expected = if name.starts_with("README.md/") {
            libc::ENOTDIR
        } else {
            libc::ENOENT
        };
        assert_eq!(error.raw_os_error(), Some(expected), "{name}");
    }
}

#[test]
fn the_filesystem_tells_its_size_and_that_it_is_full_and_read_only() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let view = fixture.plan(Kind::PatchedFp8).view;
    let bytes: u64 = view.files().map(|(_, _, content)| content.len()).sum();
    let size = rustix::fs::statvfs(&fixture.mountpoint).unwrap();
    assert_eq!(size.f_blocks, bytes.div_ceil(size.f_frsize));
    assert_eq!((size.f_bfree, size.f_bavail, size.f_ffree), (0, 0, 0));
    assert_eq!(size.f_files, view.len() as u64);
    assert_eq!(size.f_namemax, 255);
    assert!(size.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    assert!(size.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID));
}

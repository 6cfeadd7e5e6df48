//! A view that is written to a directory while it is mounted.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use ckptfs::stats::{PersistState, PersistStats, Snapshot};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;

use crate::fixture::{
    Fixture, Kind, assert_refused, assert_refused_for_now, assert_same, ckptfs, eventually,
    read_tree, stderr,
};

fn stats(fixture: &Fixture) -> Snapshot {
    let text = fs::read(fixture.mountpoint.join(".ckptfs/stats.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn persist(fixture: &Fixture) -> PersistStats {
    stats(fixture).persist.unwrap()
}

fn wait_until_complete(fixture: &Fixture) {
    eventually("all files are complete", || {
        let now = persist(fixture);
        assert_eq!(now.error, None);
        now.state == PersistState::Complete
    });
}

/// Mounts the view with `--persist` of the directory, which is returned, and `more`.
fn mount(fixture: &Fixture, more: &[&str]) -> PathBuf {
    let out = fixture.path("out");
    let more = [&["--persist", out.to_str().unwrap()], more].concat();
    fixture.mount(Kind::PatchedFp8, &more);
    out
}

fn try_mount(fixture: &Fixture, kind: Kind, out: &Path) -> std::process::Output {
    let flags = ["--persist", out.to_str().unwrap()];
    fixture.try_mount(kind, &fixture.mountpoint, &flags)
}

fn unmount(fixture: &Fixture) {
    let output = fixture.unmount(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// All names in the directory that holds `out`, of what belongs to it.
fn left_beside(out: &Path) -> Vec<String> {
    let names = fs::read_dir(out.parent().unwrap()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(".out.")).collect();
    names.sort();
    names
}

#[test]
fn a_mount_becomes_what_materialize_writes_and_serves_from_it() {
    for more in [&[][..], &["--no-passthrough"], &["--direct-io"]] {
        let fixture = Fixture::new();
        let expected = fixture.expected(Kind::PatchedFp8);
        let out = mount(&fixture, more);
        wait_until_complete(&fixture);
        assert_same(&read_tree(&out), &expected);
        assert_eq!(left_beside(&out), [".out.ckptfs-persisted"]);
        let before = stats(&fixture);
        assert_same(&read_tree(&fixture.mountpoint), &expected);
        let now = stats(&fixture);
        assert_eq!(now.served.computed_bytes, before.served.computed_bytes);
        if more.contains(&"--no-passthrough") {
            let all: u64 = expected.values().map(|bytes| bytes.len() as u64).sum();
            assert_eq!(now.served.persisted_bytes, all);
            assert_eq!(now.passthrough.openings, 0);
        } else if rustix::process::geteuid().is_root() && ckptfs_has_passthrough() {
            assert_eq!(now.passthrough.openings, expected.len() as u64);
        }
        let finished = persist(&fixture);
        assert_eq!(finished.files_complete, expected.len() as u64);
        assert_eq!(finished.bytes_written, finished.bytes);
        let status = ckptfs("status").arg(&fixture.mountpoint).output().unwrap();
        let text = String::from_utf8(status.stdout).unwrap();
        let line = format!("in {}; complete", out.display());
        assert!(text.contains(&line), "{text}");
        unmount(&fixture);
        let verified = ckptfs("verify").arg(&out).output().unwrap();
        assert!(verified.status.success(), "{}", stderr(&verified));
        let compared = ckptfs("verify")
            .args(fixture.flags(Kind::PatchedFp8))
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap();
        assert!(compared.status.success(), "{}", stderr(&compared));
    }
}

fn ckptfs_has_passthrough() -> bool {
    use ckptfs::fast_paths::FastPath;
    FastPath::Passthrough.is_enabled()
}

#[test]
fn a_finished_directory_is_served_at_once() {
    let fixture = Fixture::new();
    let out = mount(&fixture, &[]);
    wait_until_complete(&fixture);
    unmount(&fixture);
    let planned = ckptfs("plan")
        .args(fixture.flags(Kind::PatchedFp8))
        .args(["--json", "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).unwrap();
    let writing = &planned["writing"];
    assert_eq!(writing["complete_files"], writing["files"]);
    assert_eq!(writing["complete_bytes"], writing["bytes"]);
    assert_eq!(writing["written_bytes"], 0);
    let identities = |out: &Path| -> Vec<(u64, i64, i64)> {
        let names = fs::read_dir(out).unwrap();
        let all = names.map(|entry| entry.unwrap().metadata().unwrap());
        all.map(|m| (m.ino(), m.mtime(), m.mtime_nsec())).collect()
    };
    let written = identities(&out);
    mount(&fixture, &[]);
    // Before anything else: there is nothing to wait for.
    assert_eq!(persist(&fixture).state, PersistState::Complete);
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::PatchedFp8),
    );
    assert_eq!(stats(&fixture).served.computed_bytes, 0);
    assert_eq!(identities(&out), written);
}

#[test]
fn a_job_that_was_stopped_goes_on_with_the_next_mount_or_with_materialize() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Stop {
        Unmount,
        Kill,
    }
    for (stop, by_materialize) in [
        (Stop::Unmount, false),
        (Stop::Kill, false),
        (Stop::Kill, true),
    ] {
        let fixture = Fixture::new();
        let expected = fixture.expected(Kind::PatchedFp8);
        let out = mount(&fixture, &["--persist-rate", "800KB", "--threads", "2"]);
        eventually("a shard is complete", || {
            persist(&fixture).files_complete >= 1
        });
        assert_ne!(persist(&fixture).state, PersistState::Complete);
        match stop {
            Stop::Unmount => unmount(&fixture),
            Stop::Kill => {
                rustix::process::kill_process(fixture.serving_process(), Signal::KILL).unwrap();
                rustix::mount::unmount(&fixture.mountpoint, UnmountFlags::DETACH).unwrap();
            }
        }
        eventually("the process has let go of the directory", || {
            let partial = out.with_file_name(".out.ckptfs-partial");
            let lock = File::open(partial.join("lock")).unwrap();
            use rustix::fs::{FlockOperation, flock};
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        assert!(!out.exists());
        if by_materialize {
            let output = ckptfs("materialize")
                .args(fixture.flags(Kind::PatchedFp8))
                .arg("--out")
                .arg(&out)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(" were complete"), "{text}");
        } else {
            mount(&fixture, &[]);
            wait_until_complete(&fixture);
            assert_same(&read_tree(&fixture.mountpoint), &expected);
        }
        assert_same(&read_tree(&out), &expected);
    }
}

#[test]
fn what_is_of_something_else_is_refused_and_left_alone() {
    let fixture = Fixture::new();
    let out = fixture.path("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine.txt"), "mine").unwrap();
    let refused = try_mount(&fixture, Kind::PatchedFp8, &out);
    assert_refused(&refused, &["out", "not empty", "choose another directory"]);
    assert_eq!(fs::read(out.join("mine.txt")).unwrap(), b"mine");
    fs::remove_dir_all(&out).unwrap();

    // An unfinished one.
    mount(&fixture, &["--persist-rate", "150KB"]);
    eventually("a shard is complete", || {
        persist(&fixture).files_complete >= 1
    });
    let second = fixture.path("second");
    fs::create_dir(&second).unwrap();
    let flags = ["--persist", out.to_str().unwrap()];
    let busy = fixture.try_mount(Kind::PatchedFp8, &second, &flags);
    assert_refused_for_now(&busy, &["another process is writing here"]);
    unmount(&fixture);
    let refused = try_mount(&fixture, Kind::Patched, &out);
    assert_refused(&refused, &["out", "another view"]);

    // A finished one.
    mount(&fixture, &[]);
    wait_until_complete(&fixture);
    unmount(&fixture);
    let refused = try_mount(&fixture, Kind::Patched, &out);
    assert_refused(&refused, &["out", "another view", "choose another"]);
    let changed = out.join("README.md");
    File::options()
        .append(true)
        .open(&changed)
        .unwrap()
        .write_all(b"more")
        .unwrap();
    let refused = try_mount(&fixture, Kind::PatchedFp8, &out);
    assert_refused(&refused, &["out", "README.md", "not the file"]);
    for place in [&fixture.base, &fixture.mountpoint] {
        let refused = try_mount(&fixture, Kind::PatchedFp8, &place.join("inside"));
        assert_refused(&refused, &["inside"]);
    }
    assert!(!fixture.is_mounted());
}

#[test]
fn a_full_disk_is_told_and_disturbs_no_reader() {
    let fixture = Fixture::new();
    let disk = fixture.path("disk");
    fs::create_dir(&disk).unwrap();
    rustix::mount::mount("none", &disk, "tmpfs", MountFlags::empty(), c"size=4m").unwrap();
    let out = disk.join("out");
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    // It is seen before anything is mounted.
    let refused = try_mount(&fixture, Kind::PatchedFp8, &out);
    assert_refused(&refused, &["too little space"]);
    assert!(!fixture.is_mounted());
    fs::remove_file(&ballast).unwrap();

    let flags = [
        "--persist",
        out.to_str().unwrap(),
        "--persist-rate",
        "500KB",
    ];
    fixture.mount(Kind::PatchedFp8, &flags);
    // Space was checked, and is taken by somebody else.
    eventually("a file is complete", || {
        persist(&fixture).files_complete >= 1
    });
    let mut file = File::create(&ballast).unwrap();
    while file.write(&[1; 4096]).is_ok_and(|count| count > 0) {}
    drop(file);
    eventually("the job fails", || {
        persist(&fixture).state == PersistState::Failed
    });
    let error = persist(&fixture).error.unwrap();
    assert!(error.contains("space"), "{error}");
    let expected = fixture.expected(Kind::PatchedFp8);
    assert_same(&read_tree(&fixture.mountpoint), &expected);
    assert_eq!(stats(&fixture).requests.errors, 0);
    unmount(&fixture);
    // And it goes on where there is room.
    fs::remove_file(&ballast).unwrap();
    fixture.mount(Kind::PatchedFp8, &flags[..2]);
    wait_until_complete(&fixture);
    assert_same(&read_tree(&out), &expected);
    unmount(&fixture);
    rustix::mount::unmount(&disk, UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_written_file_that_was_changed_is_computed_again() {
    let fixture = Fixture::new();
    let expected = fixture.expected(Kind::PatchedFp8);
    let out = mount(&fixture, &["--no-passthrough"]);
    wait_until_complete(&fixture);
    for (path, change) in [
        ("model-00001-of-00003.safetensors", "written to"),
        ("model-00002-of-00003.safetensors", "deleted"),
        ("README.md", "truncated"),
    ] {
        let path = out.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        match change {
            "deleted" => fs::remove_file(&path).unwrap(),
            "truncated" => drop(File::create(&path).unwrap()),
            _ => {
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(b"XXXXXXXX", 100_000).unwrap();
            }
        }
    }
    assert_same(&read_tree(&fixture.mountpoint), &expected);
    assert_eq!(stats(&fixture).requests.errors, 0);
}

/// The bytes of the shard that a file of these flags takes seconds to write.
const SLOWLY: [&str; 6] = [
    "--persist-rate",
    "400KB",
    "--readahead",
    "16KiB",
    "--persist-open",
    "wait",
];

fn is_complete(fixture: &Fixture, out: &Path) -> bool {
    let partial = out.with_file_name(".out.ckptfs-partial");
    let records = fs::read_to_string(partial.join("files.jsonl")).unwrap_or_default();
    out.exists() || records.contains(fixture.shard().file_name().unwrap().to_str().unwrap())
}

#[test]
fn who_only_looks_waits_for_nothing() {
    let fixture = Fixture::new();
    let out = mount(&fixture, &SLOWLY);
    let look = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let output = command.args(arguments).arg(fixture.shard()).output();
        assert!(output.unwrap().status.success(), "{program}");
    };
    look("ls", &["-l"]);
    look("stat", &[]);
    for _ in 0..3 {
        look("head", &["-c", "8"]);
    }
    fs::read_dir(&fixture.mountpoint).unwrap().for_each(drop);
    assert!(!is_complete(&fixture, &out));
}

#[test]
fn who_reads_tensors_waits_for_the_next_file_and_has_it_from_the_directory() {
    if !ckptfs_has_passthrough() {
        return; // Then there is nothing to gain by waiting, and nobody does.
    }
    let fixture = Fixture::new();
    let out = mount(&fixture, &SLOWLY);
    let read = || {
        let mut bytes = Vec::new();
        let mut file = File::open(fixture.shard()).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let first = read();
    assert!(
        !is_complete(&fixture, &out),
        "the first opening waits for nothing"
    );
    let before = stats(&fixture).served.computed_bytes;
    assert!(before > 0);
    // Nothing of it is in the page cache of the mount.
    let again = read();
    assert!(is_complete(&fixture, &out));
    let expected =
        &fixture.expected(Kind::PatchedFp8)[Path::new(fixture.shard().file_name().unwrap())];
    assert!(first == *expected && again == *expected);
    assert_eq!(stats(&fixture).served.computed_bytes, before);
}

#[test]
fn relative_paths_are_those_of_the_directory_that_the_command_was_given_in() {
    let fixture = Fixture::new();
    let facts = format!("facts-of-process-{}", std::process::id());
    let mut command = ckptfs("mount");
    command.args(fixture.flags(Kind::PatchedFp8));
    command.args(["--persist", "out", "--facts-cache", &facts]);
    command.arg(&fixture.mountpoint);
    let output = command.current_dir(fixture.path("")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    wait_until_complete(&fixture);
    assert_same(
        &read_tree(&fixture.path("out")),
        &fixture.expected(Kind::PatchedFp8),
    );
    assert!(!Path::new("/").join(&facts).exists());
}

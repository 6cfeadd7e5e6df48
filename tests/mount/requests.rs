//! What the kernel does without asking the process that serves the mount.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ckptfs::fast_paths::FastPath;

use crate::fixture::{Fixture, Kind, Server, eventually, stderr};

/// How often the process has read so far: once for each request, and for each read of a source.
fn reads(process: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let count = io.lines().find_map(|line| line.strip_prefix("syscr: "));
    count.unwrap().parse().unwrap()
}

/// Asserts that `server` is not asked for anything when `action`, which was done before, is done again.
/// The kernel may forget what it knows whenever it likes, but not every time.
fn without(server: &Server, what: &str, action: impl Fn()) {
    eventually(what, || {
        let before = reads(server.id());
        action();
        reads(server.id()) == before
    });
}

/// Lists everything below `directory` and looks at its attributes; gives the files.
fn look_at_all(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.metadata().unwrap().is_dir() {
                pending.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files
}

/// A fixture whose view has 1,000 small files more.
fn with_many_files() -> Fixture {
    let fixture = Fixture::new();
    for directory in ["one", "one/two"] {
        let directory = fixture.base.join(directory);
        fs::create_dir(&directory).unwrap();
        for number in 0..500 {
            fs::write(directory.join(format!("{number}.txt")), [b'x']).unwrap();
        }
    }
    fixture
}

#[test]
fn what_was_listed_once_is_listed_again_without_the_process() {
    if !FastPath::SilentOpen.is_enabled() {
        return;
    }
    for kind in [Kind::Patched, Kind::PatchedFp8] {
        let fixture = with_many_files();
        let server = fixture.serve(kind);
        let files = look_at_all(&fixture.mountpoint);
        assert!(files.len() > 1000);
        let mountpoint = &fixture.mountpoint;
        without(&server, "a listing without a request", || {
            assert_eq!(look_at_all(mountpoint), files);
        });
    }
}

/// Access control lists, security labels and capabilities are extended attributes. What is in the
/// files is left out: how long the kernel keeps pages is its own affair.
#[test]
fn programs_that_ask_for_extended_attributes_do_not_ask_for_each_file() {
    if !FastPath::SilentOpen.is_enabled() {
        return;
    }
    let fixture = with_many_files();
    let server = fixture.serve_with(Kind::PatchedFp8, &["--no-passthrough"]);
    let copy = fixture.path("copy");
    let copy = copy.to_str().unwrap();
    let mountpoint = fixture.mountpoint.join("one");
    let mountpoint = mountpoint.to_str().unwrap();
    for command in [
        &["ls", "-lR", "--color=always", mountpoint][..],
        &["find", mountpoint, "-ls"],
        &["cp", "-r", "--attributes-only", mountpoint, copy],
    ] {
        let run = || {
            let output = Command::new(command[0]).args(&command[1..]).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{command:?}: {}", stderr(&output));
        };
        run();
        let before = reads(server.id());
        run();
        let asked = reads(server.id()) - before;
        assert!(asked <= 10, "{asked} requests of {command:?}");
    }
}

#[test]
fn files_are_opened_again_without_the_process_where_none_is_passed_through() {
    if !FastPath::SilentOpen.is_enabled() {
        return;
    }
    let fixture = Fixture::new();
    let server = fixture.serve_with(Kind::PatchedFp8, &["--no-passthrough"]);
    let open_all = |files: &[PathBuf]| {
        for path in files {
            File::open(path).unwrap();
        }
    };
    let files = look_at_all(&fixture.mountpoint);
    open_all(&files);
    without(&server, "they are opened without a request", || {
        open_all(&files);
    });
}

#[test]
fn a_source_that_changes_is_noticed_in_files_that_are_opened_without_the_process() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &["--no-passthrough"]);
    let shard = fixture.shard();
    let mut header = [0; 8];
    File::open(&shard).unwrap().read_exact(&mut header).unwrap();
    for shard in fs::read_dir(&fixture.base).unwrap() {
        let shard = shard.unwrap().path();
        if shard.extension().is_some_and(|e| e == "safetensors") {
            let bytes = fs::read(&shard).unwrap();
            fs::write(&shard, bytes).unwrap();
        }
    }
    let error = fs::read(shard).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

/// How far the kernel reads ahead on the mount at `path`, in KiB.
fn read_ahead(path: &Path) -> String {
    let device = path.metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).unwrap()
}

#[test]
fn the_kernel_reads_ahead_as_far_as_it_is_told() {
    if !FastPath::ReadAhead.is_enabled() {
        return;
    }
    for (flag, expected) in [
        ("4MiB", "4096\n"),
        ("300KiB", "300\n"),
        ("16MiB", "16384\n"),
    ] {
        let fixture = Fixture::new();
        fixture.mount(Kind::PatchedFp8, &["--readahead", flag]);
        assert_eq!(read_ahead(&fixture.mountpoint), expected);
    }
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    assert_eq!(read_ahead(&fixture.mountpoint), "4096\n");
    let untouched = Fixture::new();
    untouched.mount(Kind::PatchedFp8, &["--readahead", "0"]);
    assert_ne!(read_ahead(&untouched.mountpoint), "4096\n");
}

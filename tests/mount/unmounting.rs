//! `ckptfs unmount`, and its relatives.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ckptfs::fuse::{MountOptions, mount};
use ckptfs::read::Reader;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;

use crate::fixture::{Fixture, Kind, assert_refused, ckptfs, eventually, stderr};

#[test]
fn every_way_of_unmounting_leaves_no_mount_and_the_process_ends_with_0() {
    let ways: [&[&str]; 4] = [
        &[env!("CARGO_BIN_EXE_ckptfs"), "unmount"],
        &[env!("CARGO_BIN_EXE_ckptfs"), "unmount", "--lazy"],
        &["umount"],
        &["fusermount3", "-u"],
    ];
    for way in ways {
        let fixture = Fixture::new();
        let mut server = fixture.serve(Kind::PatchedFp8);
        // Not by this process: a child of another test could hold the open file for a moment.
        let cat = Command::new("cat").arg(fixture.shard()).output().unwrap();
        assert!(cat.status.success());
        let mut unmount = Command::new(way[0]);
        let output = unmount.args(&way[1..]).arg(&fixture.mountpoint).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{way:?}: {}", stderr(&output));
        assert!(!fixture.is_mounted(), "{way:?}");
        assert_eq!(server.status().code(), Some(0), "{way:?}");
    }
}

#[test]
fn a_mount_in_use_is_not_unmounted_and_its_users_are_named() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let file = File::open(fixture.shard()).unwrap();
    let output = fixture.unmount(&[]);
    let this = format!("process {} ", std::process::id());
    let path = fixture.shard();
    assert_refused(
        &output,
        &["in use", &this, path.to_str().unwrap(), "--lazy"],
    );
    assert!(fixture.is_mounted());
    drop(file);
}

#[test]
fn working_directories_and_mappings_and_mounts_inside_count_as_use() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);

    let directory = fixture.mountpoint.join("tokenizer");
    let mut sleep = Command::new("sleep");
    let mut sleeper = sleep.arg("1000").current_dir(&directory).spawn().unwrap();
    let output = fixture.unmount(&[]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let name = format!("process {} (sleep): working directory", sleeper.id());
    assert_refused(&output, &[&name, directory.to_str().unwrap()]);

    let file = File::open(fixture.shard()).unwrap();
    // SAFETY: nothing writes to a view.
    let mapping = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    drop(file);
    let output = fixture.unmount(&[]);
    let name = format!("process {} ", std::process::id());
    assert_refused(
        &output,
        &[&name, "mapped file", fixture.shard().to_str().unwrap()],
    );
    drop(mapping);

    let flags = MountFlags::empty();
    rustix::mount::mount("none", &directory, "tmpfs", flags, None).unwrap();
    let output = fixture.unmount(&[]);
    rustix::mount::unmount(&directory, UnmountFlags::empty()).unwrap();
    let name = format!("a mount at {}", directory.display());
    assert_refused(&output, &[&name]);
}

#[test]
fn a_shell_in_the_mount_is_asked_to_leave_it_and_the_command_is_no_user() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let inside = fixture.mountpoint.join("tokenizer/deep");
    let ckptfs = env!("CARGO_BIN_EXE_ckptfs");
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", ckptfs]);
        shell.arg(&fixture.mountpoint).current_dir(&inside);
        shell.output().unwrap()
    };
    let output = shell("\"$1\" unmount \"$2\"; exit $?");
    assert_refused(
        &output,
        &[
            "this shell's working directory",
            inside.to_str().unwrap(),
            "cd out of it",
        ],
    );
    assert!(!stderr(&output).contains("process "), "{}", stderr(&output));
    // A relative path is one of the directory that the command is started in.
    let output = shell("\"$1\" unmount ../..; exit $?");
    assert_refused(&output, &["this shell's working directory"]);
    // Others are named, and the shell among them.
    let open = std::fs::File::open(fixture.shard()).unwrap();
    let output = shell("\"$1\" unmount \"$2\"; exit $?");
    let this = format!("process {}", std::process::id());
    assert_refused(&output, &["in use", &this, "(this shell: cd out of it)"]);
    drop(open);
    assert!(fixture.is_mounted());
    // The command that replaced its shell is no user of the mount.
    let output = shell("exec \"$1\" unmount \"$2\"");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!fixture.is_mounted());
}

#[test]
fn a_mount_in_use_is_detached_with_lazy_and_what_is_open_stays_readable() {
    let fixture = Fixture::new();
    let expected = fixture.expected(Kind::PatchedFp8);
    let mut server = fixture.serve(Kind::PatchedFp8);
    let file = File::open(fixture.shard()).unwrap();
    let output = fixture.unmount(&["--lazy"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!fixture.is_mounted());
    let name = fixture.shard();
    let expected = &expected[Path::new(name.file_name().unwrap())];
    let mut bytes = vec![0; expected.len()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == *expected);
    drop(file);
    assert_eq!(server.status().code(), Some(0));
}

#[test]
fn the_close_that_ends_a_detached_mount_is_never_an_error() {
    /// That a request is just taken while the mount ends was seen in one of 200.
    const MOUNTS: usize = 400;
    let fixture = Fixture::new();
    let view = fixture.plan(Kind::Patched).view;
    for _ in 0..MOUNTS {
        let reader = Arc::new(Reader::new(view.clone(), 1 << 20));
        let mounted = mount(reader, &fixture.mountpoint, &MountOptions::default()).unwrap();
        let file = File::open(fixture.mountpoint.join("README.md")).unwrap();
        mounted.detacher().detach().unwrap();
        drop(file);
        mounted.wait().unwrap();
    }
}

#[test]
fn a_mount_whose_process_was_killed_can_be_unmounted_even_while_it_is_in_use() {
    for in_use in [false, true] {
        let fixture = Fixture::new();
        let mut server = fixture.serve(Kind::Patched);
        let file = in_use.then(|| File::open(fixture.shard()).unwrap());
        server.signal(Signal::KILL);
        server.status();
        assert!(fixture.is_mounted());
        let output = fixture.unmount(&[]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!fixture.is_mounted());
        assert_eq!(fs::read_dir(&fixture.mountpoint).unwrap().count(), 0);
        drop(file);
    }
}

#[test]
fn only_mounts_of_views_are_unmounted() {
    let fixture = Fixture::new();
    assert_refused(&fixture.unmount(&[]), &["nothing is mounted"]);
    let output = ckptfs("unmount").arg(fixture.path("no")).output().unwrap();
    assert_refused(&output, &["no such directory"]);

    let flags = MountFlags::empty();
    rustix::mount::mount("none", &fixture.mountpoint, "tmpfs", flags, None).unwrap();
    for more in [&[][..], &["--lazy"]] {
        assert_refused(&fixture.unmount(more), &["tmpfs", "left alone"]);
        assert!(fixture.is_mounted());
    }
}

#[test]
fn the_end_of_a_process_leaves_a_mount_of_another_process_at_the_same_place_alone() {
    let fixture = Fixture::new();
    let mut first = fixture.serve(Kind::Patched);
    let file = File::open(fixture.shard()).unwrap();
    assert!(fixture.unmount(&["--lazy"]).status.success());
    let mut second = fixture.serve(Kind::PatchedFp8);
    assert_ne!(first.id(), second.id());
    drop(file);
    assert_eq!(first.status().code(), Some(0));
    assert!(fixture.is_mounted());
    assert!(second.is_running());
    assert!(fixture.shard().metadata().unwrap().len() > 0);
}

#[test]
fn a_process_that_learns_late_of_its_end_leaves_the_next_mount_alone() {
    for signals in [&[Signal::CONT][..], &[Signal::TERM, Signal::CONT]] {
        let fixture = Fixture::new();
        let mut first = fixture.serve(Kind::Patched);
        first.signal(Signal::STOP);
        rustix::mount::unmount(&fixture.mountpoint, UnmountFlags::empty()).unwrap();
        // The kernel gives this one the numbers that the first one had.
        let mut second = fixture.serve(Kind::PatchedFp8);
        signals.iter().for_each(|signal| first.signal(*signal));
        assert_eq!(first.status().code(), Some(0));
        assert!(fixture.is_mounted());
        assert!(second.is_running());
        assert!(fixture.shard().metadata().unwrap().len() > 0);
    }
}

#[test]
fn a_view_that_was_mounted_over_is_not_unmounted_by_its_signal() {
    let fixture = Fixture::new();
    let log = fixture.path("log");
    let server = fixture.serve_logging_to(Kind::Patched, &log);
    let flags = MountFlags::empty();
    rustix::mount::mount("none", &fixture.mountpoint, "tmpfs", flags, None).unwrap();
    let marker = fixture.mountpoint.join("marker");
    fs::write(&marker, "").unwrap();
    server.signal(Signal::TERM);
    eventually("the log says why nothing was unmounted", || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("another filesystem is mounted over this view")
    });
    assert!(marker.exists());
}

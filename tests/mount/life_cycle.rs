//! How a mount begins, and how its process ends.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use ckptfs::fast_paths::FastPath;
use rustix::process::Signal;

use crate::fixture::{
    Fixture, Kind, assert_refused, assert_same, ckptfs, eventually, is_mounted, read_tree, stderr,
};

#[test]
fn a_mount_in_the_background_is_ready_when_the_command_returns() {
    let fixture = Fixture::new();
    let output = fixture.try_mount(Kind::PatchedFp8, &fixture.mountpoint, &[]);
    let files = read_tree(&fixture.mountpoint);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    assert_same(&files, &fixture.expected(Kind::PatchedFp8));
}

#[test]
fn the_summary_of_the_plan_is_printed_first() {
    let fixture = Fixture::new();
    let output = fixture.try_mount(Kind::PatchedFp8, &fixture.mountpoint, &[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let base = fixture.base.to_str().unwrap();
    assert!(printed.contains(base), "{printed}");
}

#[test]
fn sources_and_mountpoint_may_be_given_relative_to_the_working_directory() {
    let fixture = Fixture::new();
    let mut command = ckptfs("mount");
    command.args(["--base", "base", "--extra", "extra", "mount point"]);
    let output = command.current_dir(fixture.path("")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::Patched),
    );
}

#[test]
fn the_mount_table_names_the_type_and_the_base() {
    let fixture = Fixture::new();
    let mut command = ckptfs("mount");
    command.args(["--base", "base", "mount point"]);
    let output = command.current_dir(fixture.path("")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let expected = format!("- fuse.ckptfs {} ro", fixture.base.display());
    assert!(table.contains(&expected), "{table}");
}

#[test]
fn a_mount_that_cannot_be_made_is_refused_with_the_reason() {
    let fixture = Fixture::new();
    let refused = |path: &Path, reason: &[&str]| {
        for more in [&[][..], &["--foreground"]] {
            let output = fixture.try_mount(Kind::Patched, path, more);
            assert_refused(&output, reason);
            assert!(!is_mounted(path));
        }
    };
    refused(&fixture.path("missing"), &["missing", "no such directory"]);

    let file = fixture.path("file");
    fs::write(&file, "").unwrap();
    refused(&file, &["file", "not a directory"]);

    let full = fixture.path("full");
    fs::create_dir_all(full.join("something")).unwrap();
    refused(&full, &["full", "not empty"]);
}

#[test]
fn a_view_that_cannot_be_planned_is_refused_with_the_reason() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.base.join("model-00002-of-00002.safetensors")).unwrap();
    let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &[]);
    assert_refused(&output, &["model-00002-of-00002.safetensors"]);
    assert!(!fixture.is_mounted());
}

#[test]
fn wrong_usage_exits_with_2() {
    let fixture = Fixture::new();
    let output = ckptfs("mount").arg(&fixture.mountpoint).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let more = ["--threads", "0"];
    let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &more);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_second_mount_at_the_same_place_is_refused_and_the_first_stays() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &[]);
    assert_refused(&output, &["already mounted", "ckptfs unmount"]);
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::PatchedFp8),
    );
}

#[test]
fn a_mountpoint_that_overlaps_with_a_source_is_refused() {
    let fixture = Fixture::new();
    let inside = fixture.extra.join("inside");
    fs::create_dir(&inside).unwrap();
    let link = fixture.path("link");
    std::os::unix::fs::symlink(&fixture.base, &link).unwrap();
    for (mountpoint, reason) in [
        (&fixture.base, "is a source"),
        (&link, "is a source"),
        (&inside, "is inside a source"),
        (&fixture.path("."), "would hide a source"),
    ] {
        let output = fixture.try_mount(Kind::Patched, mountpoint, &[]);
        assert_refused(&output, &[reason, "mount elsewhere"]);
        assert!(!is_mounted(mountpoint));
    }
}

#[test]
fn a_signal_unmounts_and_the_process_ends_with_0() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let fixture = Fixture::new();
        // The tests may themselves run under nohup.
        let mut server = fixture.serve_under(Kind::PatchedFp8, &["env", "--default-signal"]);
        server.signal(signal);
        assert_eq!(server.status().code(), Some(0), "{signal:?}");
        assert!(!fixture.is_mounted(), "{signal:?}");
    }
}

#[test]
fn a_signal_ends_a_background_mount_too() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let mountpoint = fixture.mountpoint.to_str().unwrap();
    let output = Command::new("pgrep")
        .args(["-f", mountpoint])
        .output()
        .unwrap();
    let id = String::from_utf8(output.stdout).unwrap();
    let kill = Command::new("kill").arg(id.trim()).status().unwrap();
    assert!(kill.success());
    eventually("the mount is gone", || !fixture.is_mounted());
}

#[test]
fn what_is_open_at_a_signal_stays_readable_until_it_is_closed() {
    let fixture = Fixture::new();
    let expected = fixture.expected(Kind::PatchedFp8);
    let mut server = fixture.serve(Kind::PatchedFp8);
    let file = File::open(fixture.shard()).unwrap();
    server.signal(Signal::TERM);
    eventually("the mount is gone", || !fixture.is_mounted());
    let name = fixture.shard();
    let expected = &expected[Path::new(name.file_name().unwrap())];
    let mut bytes = vec![0; expected.len()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == *expected);
    assert!(server.is_running());
    drop(file);
    assert_eq!(server.status().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_process_while_files_are_open() {
    let fixture = Fixture::new();
    let mut server = fixture.serve(Kind::PatchedFp8);
    let file = File::open(fixture.shard()).unwrap();
    server.signal(Signal::TERM);
    eventually("the mount is gone", || !fixture.is_mounted());
    server.signal(Signal::TERM);
    assert_eq!(server.status().code(), Some(1));
    let error = file.read_at(&mut [0], 0).unwrap_err();
    assert!(error.raw_os_error().is_some());
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let fixture = Fixture::new();
    let mut server = fixture.serve_under(
        Kind::Patched,
        &["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"],
    );
    let file = File::open(fixture.shard()).unwrap();
    server.signal(Signal::HUP);
    // If that was the first signal, this is the second, which ends the process with 1.
    server.signal(Signal::TERM);
    eventually("the mount is gone", || !fixture.is_mounted());
    drop(file);
    assert_eq!(server.status().code(), Some(0));
}

#[test]
fn a_user_without_privileges_mounts_and_unmounts_through_the_helper() {
    /// In a mount namespace of its own, where everybody may open the FUSE device.
    const SCRIPT: &str = r#"
        set -eu
        mountpoint=$1 device=$2 copy=$3 ckptfs=$4 log=$5; shift 5
        mount -t tmpfs none "$device"
        mknod "$device/fuse" c 10 229
        chmod 666 "$device/fuse"
        mount --bind "$device/fuse" /dev/fuse
        chown 65534 "$mountpoint"
        trap 'umount --lazy "$mountpoint" || true' EXIT
        user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
        user "$ckptfs" mount --log-file "$log" "$@" "$mountpoint"
        user cp -r "$mountpoint" "$copy"
        if ls "$mountpoint"; then echo "root was let in" >&2; exit 1; fi
        user "$ckptfs" unmount "$mountpoint"
        trap - EXIT
        if mountpoint -q "$mountpoint"; then echo "still mounted" >&2; exit 1; fi
    "#;
    let fixture = Fixture::new();
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(fixture.path(""), everybody).unwrap();
    let [device, copy, program, log] =
        ["device", "copy", "ckptfs", "log"].map(|name| fixture.path(name));
    fs::create_dir(&device).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_ckptfs"), &program).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .args([&fixture.mountpoint, &device, &copy, &program, &log])
        .args(fixture.flags(Kind::PatchedFp8))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_same(&read_tree(&copy), &fixture.expected(Kind::PatchedFp8));
    // Nobody but root may have the kernel read further ahead.
    let log = fs::read_to_string(log).unwrap();
    let is_said = log.contains("read_ahead_kb: cannot be raised");
    assert_eq!(is_said, FastPath::ReadAhead.is_enabled(), "{log}");
}

#[test]
fn a_user_whose_permission_is_taken_away_goes_on_serving_what_was_opened() {
    /// As above. What is served comes to a copy; README.md was never opened.
    const SCRIPT: &str = r#"
        set -eu
        mountpoint=$1 device=$2 copy=$3 ckptfs=$4 base=$5; shift 5
        mount -t tmpfs none "$device"
        mknod "$device/fuse" c 10 229
        chmod 666 "$device/fuse"
        mount --bind "$device/fuse" /dev/fuse
        chown 65534 "$mountpoint"
        trap 'umount --lazy "$mountpoint"' EXIT
        user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
        user "$ckptfs" mount "$@" "$mountpoint"
        for name in model-00001-of-00002.safetensors README.md; do
            user head -c 1 "$base/$name" >"$device/read"
            chmod 000 "$base/$name"
            if user head -c 1 "$base/$name"; then echo "still allowed" >&2; exit 1; fi
        done
        user cat "$mountpoint/model-00001-of-00003.safetensors" >"$copy"
        if user cat "$mountpoint/README.md"; then echo "it was opened" >&2; exit 1; fi
    "#;
    for kind in [Kind::Patched, Kind::PatchedFp8] {
        let fixture = Fixture::new();
        let expected = fixture.expected(kind);
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(fixture.path(""), everybody).unwrap();
        let [device, copy, program] = ["device", "copy", "ckptfs"].map(|name| fixture.path(name));
        fs::create_dir(&device).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_ckptfs"), &program).unwrap();
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", SCRIPT, "sh"])
            .args([&fixture.mountpoint, &device, &copy, &program, &fixture.base])
            .args(fixture.flags(kind))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let served = &expected[Path::new("model-00001-of-00003.safetensors")];
        assert!(fs::read(copy).unwrap() == *served);
    }
}

#[test]
fn root_serves_with_no_more_than_it_needs() {
    const DAC_READ_SEARCH: u32 = 2;
    const SYS_ADMIN: u32 = 21;
    let fixture = Fixture::new();
    let server = fixture.serve(Kind::Patched);
    fs::read(fixture.shard()).unwrap();
    let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        for set in ["CapEff:", "CapPrm:"] {
            let found = u64::from_str_radix(&field(set), 16).unwrap();
            assert_eq!(found & !(1 << DAC_READ_SEARCH | 1 << SYS_ADMIN), 0, "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
    }
}

#[test]
fn a_mount_whose_process_was_killed_is_cleared_by_the_next_mount() {
    let fixture = Fixture::new();
    let mut server = fixture.serve(Kind::Patched);
    // The kernel now has the attributes of the top directory, and would answer a stat with them.
    fixture.mountpoint.metadata().unwrap();
    server.signal(Signal::KILL);
    assert_eq!(server.status().code(), None);
    assert!(fixture.is_mounted());
    fixture.mount(Kind::PatchedFp8, &[]);
    assert_same(
        &read_tree(&fixture.mountpoint),
        &fixture.expected(Kind::PatchedFp8),
    );
    assert!(fixture.unmount(&["--lazy"]).status.success());
    assert!(!fixture.is_mounted(), "only one mount is left, and it goes");
}

#[test]
fn the_log_file_tells_of_mount_and_unmount() {
    let fixture = Fixture::new();
    let log = fixture.path("log");
    fs::write(&log, "kept\n").unwrap();
    fixture.mount(Kind::Patched, &["--log-file", log.to_str().unwrap()]);
    assert!(fixture.unmount(&["--lazy"]).status.success());
    eventually("the end is logged", || {
        fs::read_to_string(&log).unwrap().contains(" unmounted\n")
    });
    let text = fs::read_to_string(&log).unwrap();
    let mounted = format!("on {}\n", fixture.mountpoint.display());
    assert!(
        text.starts_with("kept\n") && text.contains(&mounted),
        "{text}"
    );
}

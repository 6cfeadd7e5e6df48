//! What a mount writes beside the view: its log, and facts. Never to a source or the mountpoint.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;

use crate::fixture::{Fixture, Kind, assert_refused, ckptfs, is_mounted, read_tree, stderr};

#[test]
fn a_log_or_facts_in_a_source_or_the_mountpoint_are_refused_and_nothing_is_written() {
    let fixture = Fixture::new();
    symlink("base", fixture.path("link")).unwrap();
    fs::hard_link(
        fixture.base.join("model-00001-of-00002.safetensors"),
        fixture.path("hard.log"),
    )
    .unwrap();
    let now = || [&fixture.base, &fixture.extra, &fixture.mountpoint].map(|path| read_tree(path));
    let before = now();
    let source = "which the view is made from";
    let mountpoint = "which the view is to be mounted on";
    for (path, why) in [
        ("base/model-00001-of-00002.safetensors", source),
        ("base/new.log", source),
        ("link/new.log", source),
        ("hard.log", source),
        ("extra/config.json", source),
        ("mount point/x.log", mountpoint),
        ("mount point/../mount point/x.log", mountpoint),
    ] {
        let path = fixture.path(path);
        let path = path.to_str().unwrap();
        for flag in ["--log-file", "--facts-cache"] {
            let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &[flag, path]);
            assert_refused(&output, &[path, why, "choose another place"]);
            assert!(now() == before, "{flag} {path}");
            assert!(!is_mounted(&fixture.mountpoint));
        }
    }
    fixture.mount(Kind::Patched, &[]);
}

#[test]
fn the_base_may_stand_before_the_mountpoint() {
    let fixture = Fixture::new();
    let [base, mountpoint] = [fixture.base.as_os_str(), fixture.mountpoint.as_os_str()];
    let [extra, flag] = [fixture.extra.as_os_str(), OsStr::new("--extra")];
    for words in [
        [base, mountpoint, flag, extra],
        [base, flag, extra, mountpoint],
        [flag, extra, base, mountpoint],
    ] {
        let output = ckptfs("mount").args(words).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(read_tree(&fixture.mountpoint) == fixture.expected(Kind::Patched));
        assert!(fixture.unmount(&[]).status.success());
    }
    let too_many = [base, mountpoint, OsStr::new("--base"), base];
    for words in [&[mountpoint][..], &too_many] {
        let refused = ckptfs("mount").args(words).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        crate::common::assert_names(&stderr(&refused), &["--base", "Usage"]);
    }
}

#[test]
fn neither_log_nor_status_have_a_terminal_obey_a_name() {
    let fixture = Fixture::new();
    let hostile = "a\u{1b}[2J\u{7}\nFORGED\r";
    let base = fixture.path(hostile);
    fs::rename(&fixture.base, &base).unwrap();
    let mountpoint = fixture.path("m").join(hostile);
    fs::create_dir_all(&mountpoint).unwrap();
    let log = fixture.path("log");
    let mut command = ckptfs("mount");
    command.arg(&base).arg(&mountpoint).arg("--log-file");
    let output = command.arg(&log).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let status = ckptfs("status").arg(&mountpoint).output().unwrap();
    let unmounted = ckptfs("unmount").arg(&mountpoint).output().unwrap();
    assert!(unmounted.status.success(), "{}", stderr(&unmounted));
    let refused = ckptfs("unmount").arg(&mountpoint).output().unwrap();
    for (what, text) in [
        ("mount", output.stdout),
        ("status", status.stdout),
        ("unmount", refused.stderr),
        ("log", fs::read(&log).unwrap()),
    ] {
        let text = String::from_utf8(text).unwrap();
        let obeyed = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(obeyed), "{what}: {text:?}");
        assert!(
            !text.lines().any(|line| line.starts_with("FORGED")),
            "{what}: {text}"
        );
        assert!(
            text.contains(r"a\u001b[2J\u0007\nFORGED\r"),
            "{what}: {text}"
        );
    }
}

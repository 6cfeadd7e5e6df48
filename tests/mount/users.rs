//! An ordinary user, with the real fusermount3: mounts, their errors, and what doctor says of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::assert_names;
use crate::fixture::{Fixture, Kind, assert_same, read_tree, stderr};

/// In a mount namespace of its own: a user `ordinary`, who may open the FUSE device, and an empty
/// /etc/fuse.conf. `$copy` is a directory of that user.
const PREPARE: &str = r#"
    set -eu
    work=$1 program=$2 mountpoint=$3 copy=$4 base=$5; shift 5
    mount -t tmpfs none "$work"
    mkdir "$work/dev" "$copy"
    mknod -m 666 "$work/dev/fuse" c 10 229
    mknod -m 666 "$work/dev/null" c 1 3
    mount --bind "$work/dev/fuse" /dev/fuse
    { cat /etc/passwd; echo 'ordinary:x:4242:4242::/nonexistent:/bin/sh'; } >"$work/passwd"
    mount --bind "$work/passwd" /etc/passwd
    : >"$work/fuse.conf"
    mount --bind "$work/fuse.conf" /etc/fuse.conf
    cp "$program" "$work/ckptfs"
    chown 4242 "$mountpoint" "$copy"
    trap 'umount --lazy "$mountpoint" 2>/dev/null || true' EXIT
    as() { id=$1; shift; setpriv --reuid "$id" --regid "$id" --clear-groups "$@"; }
    user() { as 4242 "$@"; }
    ckptfs=$work/ckptfs
    refused() { if "$@"; then echo "not refused: $*" >&2; exit 9; fi; }
    PATH=$PATH:/usr/sbin
"#;

fn run(fixture: &Fixture, kind: Kind, script: &str) -> Output {
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(fixture.path(""), everybody).unwrap();
    let [work, copy] = ["work", "copy"].map(|name| fixture.path(name));
    fs::create_dir_all(&work).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{PREPARE}{script}"), "sh"]);
    command.arg(work).arg(env!("CARGO_BIN_EXE_ckptfs"));
    command.args([&fixture.mountpoint, &copy, &fixture.base]);
    command.args(fixture.flags(kind)).output().unwrap()
}

/// What a script that succeeds prints, and says on standard error.
fn run_ok(fixture: &Fixture, kind: Kind, script: &str) -> [String; 2] {
    let output = run(fixture, kind, script);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = stderr(&output);
    assert!(output.status.success(), "{error}\n{printed}");
    [printed, error]
}

#[test]
fn a_user_mounts_reads_and_unmounts_and_nobody_else() {
    let fixture = Fixture::new();
    let expected = fixture.expected(Kind::PatchedFp8);
    let script = r#"
        user "$ckptfs" mount "$@" "$mountpoint" >&2
        user cp -r "$mountpoint" "$copy/view"
        refused ls "$mountpoint"
        refused as 65534 ls "$mountpoint"
        refused user touch "$mountpoint/new"
        refused user rm "$mountpoint/config.json"
        refused as 65534 "$ckptfs" unmount "$mountpoint"
        user "$ckptfs" unmount "$mountpoint"
        # A source that changes is an error for who reads, and only for that file.
        user "$ckptfs" mount "$@" "$mountpoint" >&2
        printf x >>"$base/README.md"
        refused user cat "$mountpoint/README.md"
        user cat "$mountpoint/config.json" >&2
        user "$ckptfs" unmount "$mountpoint"
        refused mountpoint -q "$mountpoint"
        refused user "$ckptfs" unmount "$mountpoint"
    "#;
    let [_, error] = run_ok(&fixture, Kind::PatchedFp8, script);
    assert_names(
        &error,
        &[
            "Permission denied",
            "Read-only file system",
            "Input/output error",
            "nothing is mounted there",
        ],
    );
    assert_same(&read_tree(&fixture.path("copy/view")), &expected);
}

#[test]
fn others_are_let_in_only_where_root_allows_it() {
    let fixture = Fixture::new();
    let expected = fixture.expected(Kind::Patched);
    let script = r#"
        refused user "$ckptfs" mount --allow-other "$@" "$mountpoint"
        refused mountpoint -q "$mountpoint"
        echo user_allow_other >"$work/fuse.conf"
        user "$ckptfs" mount --allow-other "$@" "$mountpoint"
        chown 65534 "$copy"
        as 65534 cp -r "$mountpoint" "$copy/view"
        ls "$mountpoint"
        refused as 65534 "$ckptfs" unmount "$mountpoint"
        user "$ckptfs" unmount "$mountpoint"
    "#;
    let [printed, error] = run_ok(&fixture, Kind::Patched, script);
    assert_names(
        &error,
        &[
            "root add the line user_allow_other to /etc/fuse.conf",
            "leave out --allow-other",
        ],
    );
    assert_names(&printed, &["config.json"]);
    assert_same(&read_tree(&fixture.path("copy/view")), &expected);
}

#[test]
fn what_is_missing_is_named_with_the_cure_by_mount_and_doctor_alike() {
    /// What is taken away, how the user's commands are started then, and what is said.
    const CASES: [(&str, &str, &[&str]); 6] = [
        (
            "mkdir $work/bin",
            "user env PATH=$work/bin",
            &["fusermount3 is not installed; install the package fuse3"],
        ),
        (
            "mkdir $work/bin; cp $(command -v fusermount3) $work/bin; chmod 755 $work/bin/*",
            "user env PATH=$work/bin",
            &["is not setuid root", "chmod u+s "],
        ),
        (
            "",
            "user setpriv --no-new-privs",
            &["no_new_privs", "NoNewPrivileges"],
        ),
        (
            "chmod 600 $work/dev/fuse",
            "user",
            &[
                "/dev/fuse: this user cannot open it (Permission denied",
                "chmod 666",
            ],
        ),
        (
            "rm $work/dev/fuse; mount --bind $work/dev /dev",
            "user",
            &[
                "/dev/fuse: it is missing",
                "modprobe fuse",
                "--device /dev/fuse",
            ],
        ),
        (
            "chown 0 \"$mountpoint\"; chmod 755 \"$mountpoint\"",
            "user",
            &[
                "the mount was refused",
                "user has no write access to mountpoint",
            ],
        ),
    ];
    let fixture = Fixture::new();
    for (break_it, start, said) in CASES {
        let _ = fs::remove_dir_all(fixture.path("copy"));
        let script = format!(
            r#"
            {break_it}
            refused {start} "$ckptfs" mount "$@" "$mountpoint"
            refused mountpoint -q "$mountpoint"
            status=0
            {start} "$ckptfs" doctor >"$copy/doctor" || status=$?
            echo "status $status"
            cat "$copy/doctor"
        "#
        );
        let [printed, error] = run_ok(&fixture, Kind::Patched, &script);
        assert_names(&error, said);
        if said[0].starts_with("the mount was refused") {
            // That is about this mountpoint, and not about the machine.
            assert_names(&printed, &["status 0\n", "mounts work\n"]);
            continue;
        }
        assert_names(&printed, said);
        assert_names(
            &printed,
            &["status 1\n", "FAIL  mount          [", "mounts do not work"],
        );
    }
}

#[test]
fn doctor_says_what_a_user_can_have_and_what_it_costs() {
    let fixture = Fixture::new();
    let script = r#"
        user env TMPDIR="$copy" "$ckptfs" doctor
        user env TMPDIR="$copy" "$ckptfs" doctor --json >"$copy/json"
        ls -A "$copy"
    "#;
    let [printed, error] = run_ok(&fixture, Kind::Patched, script);
    assert_eq!(error, "");
    assert_names(
        &printed,
        &[
            "ok    kernel         Linux ",
            "ok    /dev/fuse      can be opened\n",
            "ok    privileges     mounts go through /",
            "warn  allow-other    other users cannot be let in: have root add the line user_allow_other to /etc/fuse.conf\n",
            "                     costs: mounts for other users are refused",
            "warn  passthrough    ",
            "warn  read-ahead     ",
            "ok    mount          a tiny view was mounted, read, and taken away\n",
            "mounts work\njson\n",
        ],
    );
    let json = fs::read_to_string(fixture.path("copy/json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["works"], true);
    let checks = json["checks"].as_array().unwrap();
    let check = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap();
    assert_eq!(check("mount")["level"], "ok");
    assert_eq!(check("allow-other")["level"], "warn");
    assert!(check("allow-other")["cost"].is_string());
}

#[test]
fn doctor_tells_root_too_and_leaves_nothing() {
    let fixture = Fixture::new();
    let directory = fixture.path("temporary");
    fs::create_dir(&directory).unwrap();
    let doctor = |disabled: &str| {
        let mut command = crate::fixture::ckptfs("doctor");
        command.env("TMPDIR", &directory);
        command.env("CKPTFS_DISABLE", disabled).output().unwrap()
    };
    for disabled in ["", "all"] {
        let output = doctor(disabled);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{printed}");
        assert_names(
            &printed,
            &[
                "ok    privileges     this process may mount by itself",
                "mounts work\n",
            ],
        );
        assert_eq!(
            printed.contains("warn  passthrough    it is switched off by the environment"),
            disabled == "all",
            "{printed}"
        );
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
    let limited = Command::new("sh")
        .args(["-c", "ulimit -n 100; exec \"$0\" doctor"])
        .arg(env!("CARGO_BIN_EXE_ckptfs"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&limited.stdout).into_owned();
    assert_names(
        &printed,
        &["warn  open files     at most 100: raise the hard limit"],
    );
}

//! `mount.ckptfs`, called by the real mount(8): by type, and for lines of fstab.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::common::assert_names;
use crate::fixture::{Fixture, Kind, assert_same, read_tree, stderr};

/// In a mount namespace of its own, whose /sbin has the helper beside all that is there.
const PREPARE: &str = r#"
    set -eu
    work=$1 ckptfs=$2 mountpoint=$3 copy=$4; shift 4
    sbin=$(readlink -f /sbin)
    mount -t tmpfs none "$work"
    mkdir "$work/old" "$work/new"
    mount --bind "$sbin" "$work/old"
    ln -s "$work"/old/* "$work/new/"
    ln -s "$ckptfs" "$work/new/mount.ckptfs"
    mount --bind "$work/new" "$sbin"
    trap 'umount --lazy "$mountpoint" 2>/dev/null || true' EXIT
    table() { grep -F " $(echo "$mountpoint" | sed 's/ /\\040/g') " /proc/self/mountinfo; }
    mounts() { table | grep -c ' - fuse.ckptfs ' || true; }
"#;

fn copy(fixture: &Fixture) -> PathBuf {
    fixture.path("copy")
}

/// Runs `script` with the helper in place, `$mountpoint`, `$copy` and `arguments`.
fn run(fixture: &Fixture, script: &str, arguments: &[&str]) -> Output {
    let work = fixture.path("work");
    fs::create_dir_all(&work).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{PREPARE}{script}"), "sh"]);
    command.arg(work).arg(env!("CARGO_BIN_EXE_ckptfs"));
    command.arg(&fixture.mountpoint).arg(copy(fixture));
    command.args(arguments).output().unwrap()
}

/// A recipe of the view, with a space in its name.
fn recipe(fixture: &Fixture) -> String {
    let path = fixture.path("the model.yml");
    let text = "base: base\nview:\n  patch: extra\n  fp8: true\n";
    fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

fn assert_ok(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = stderr(output);
    assert!(output.status.success(), "{error}\n{printed}");
    assert_eq!(error, "");
    printed
}

#[test]
fn a_recipe_is_mounted_by_type_and_unmounted() {
    let fixture = Fixture::new();
    let script = r#"
        mount -t ckptfs "$1" "$mountpoint" -o allow_other,cache-size=1MiB,x-mine,_netdev
        table
        cp -r "$mountpoint" "$copy"
        umount "$mountpoint"
        mounts
    "#;
    let recipe = recipe(&fixture);
    let printed = assert_ok(&run(&fixture, script, &[&recipe]));
    let source = recipe.replace(' ', "\\040");
    assert_names(
        &printed,
        &[&format!(" - fuse.ckptfs {source} ro"), "allow_other"],
    );
    assert!(printed.ends_with("\n0\n"), "{printed}");
    assert_eq!(printed.lines().count(), 2, "it is quiet: {printed}");
    assert_same(
        &read_tree(&copy(&fixture)),
        &fixture.expected(Kind::PatchedFp8),
    );
}

#[test]
fn a_line_of_fstab_is_mounted_once() {
    let fixture = Fixture::new();
    let fstab = fixture.path("fstab");
    let escaped = |path: &str| path.replace(' ', "\\040");
    let line = format!(
        "{} {} ckptfs allow_other,cache-size=1GiB,noexec,_netdev,nofail 0 0\n",
        escaped(&recipe(&fixture)),
        escaped(fixture.mountpoint.to_str().unwrap())
    );
    fs::write(&fstab, line).unwrap();
    let script = r#"
        mount -T "$1" "$mountpoint"
        mounts
        mount -a -T "$1"
        mounts
        table
        cp -r "$mountpoint" "$copy"
        umount "$mountpoint"
        mount -a -T "$1"
        mounts
        umount "$mountpoint"
        mounts
    "#;
    let printed = assert_ok(&run(&fixture, script, &[fstab.to_str().unwrap()]));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        [lines[0], lines[1], lines[3], lines[4]],
        ["1", "1", "1", "0"],
        "{printed}"
    );
    assert_names(lines[2], &["ro,", "noexec"]);
    assert_same(
        &read_tree(&copy(&fixture)),
        &fixture.expected(Kind::PatchedFp8),
    );
}

#[test]
fn a_checkpoint_directory_is_mounted_with_options_for_its_view() {
    let fixture = Fixture::new();
    let script = r#"
        mount -v -t ckptfs "$1" "$mountpoint" -o "$2"
        cp -r "$mountpoint" "$copy"
        umount "$mountpoint"
    "#;
    let options = format!("extra={},fp8", fixture.extra.display());
    let base = fixture.base.to_str().unwrap();
    let printed = assert_ok(&run(&fixture, script, &[base, &options]));
    // -v is for the helper too.
    assert_names(&printed, &["extra  ", "changed (fp8)"]);
    assert_same(
        &read_tree(&copy(&fixture)),
        &fixture.expected(Kind::PatchedFp8),
    );
}

#[test]
fn what_cannot_be_mounted_is_refused_with_the_exit_codes_of_mount() {
    let fixture = Fixture::new();
    let script = r#"
        status=0
        mount -t ckptfs "$@" "$mountpoint" || status=$?
        echo "status $status, $(mounts) mounts"
    "#;
    let recipe = recipe(&fixture);
    let refused = |arguments: &[&str], status: i32, parts: &[&str]| {
        let output = run(&fixture, script, arguments);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            printed,
            format!("status {status}, 0 mounts\n"),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_names(&stderr(&output), parts);
    };
    refused(
        &["-o", "fp9", &recipe],
        1,
        &["mount.ckptfs: ", "fp9", "not known"],
    );
    refused(
        &["-o", "cache-size=much", &recipe],
        1,
        &["cache-size", "much"],
    );
    refused(
        &["-o", "dtype=int3", &recipe],
        1,
        &["dtype", "int3", "bf16"],
    );
    let missing = fixture.path("missing.yml");
    refused(
        &[missing.to_str().unwrap()],
        1,
        &["missing.yml", "a recipe or a checkpoint"],
    );
    fs::write(fixture.path("bad.yml"), "base: nowhere\n").unwrap();
    let bad = fixture.path("bad.yml");
    refused(&[bad.to_str().unwrap()], 32, &["bad.yml", "nowhere"]);
    // All but the mount.
    refused(&["-f", bad.to_str().unwrap()], 32, &["nowhere"]);
    refused(&["-f", &recipe], 0, &[]);
    fs::write(fixture.mountpoint.join("something"), "").unwrap();
    refused(&[&recipe], 32, &["not empty", "--nonempty"]);
    fs::remove_file(fixture.mountpoint.join("something")).unwrap();
    let script = r#"
        mount -s -t ckptfs "$1" "$mountpoint" -o fp9
        mounts
    "#;
    assert_eq!(assert_ok(&run(&fixture, script, &[&recipe])), "1\n");
}

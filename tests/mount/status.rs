//! `ckptfs status`: mounts that serve, are dead, hang, or may not be asked.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::{Fixture, Kind, assert_refused, ckptfs, eventually, stderr};

/// Runs `ckptfs status --json`; gives its exit code and what it says of `mountpoint`. It sees mounts of
/// its own, so that it does not have those of other tests in use when they are taken away.
fn status_of(mountpoint: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new("unshare");
    command.args(["--mount", env!("CARGO_BIN_EXE_ckptfs"), "status", "--json"]);
    let output = command.args(arguments).output().unwrap();
    (output.status.code(), entry(&output, mountpoint))
}

/// What is said of `mountpoint`.
fn entry(output: &Output, mountpoint: &Path) -> Value {
    let all: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", stderr(output)));
    let of_this = |status: &&Value| status["mountpoint"] == mountpoint.to_str().unwrap();
    all.as_array()
        .unwrap()
        .iter()
        .find(of_this)
        .unwrap_or_else(|| panic!("{all:#}"))
        .clone()
}

fn status(fixture: &Fixture, more: &[&str]) -> (Option<i32>, Value) {
    let mountpoint = fixture.mountpoint.to_str().unwrap();
    let arguments: Vec<&str> = [mountpoint]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    status_of(&fixture.mountpoint, &arguments)
}

#[test]
fn a_mount_that_serves_is_told_with_its_figures_and_who_holds_it() {
    let fixture = Fixture::new();
    let server = fixture.serve(Kind::PatchedFp8);
    fs::read(fixture.shard()).unwrap();
    let mut held = {
        let mut sleep = Command::new("sleep");
        let shard = File::open(fixture.shard()).unwrap();
        sleep.arg("1000").stdin(shard).spawn().unwrap()
    };
    let (code, found) = status(&fixture, &[]);
    held.kill().unwrap();
    held.wait().unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(found["state"], "serving");
    assert_eq!(found["source"], fixture.base.to_str().unwrap());
    let stats = fs::read(fixture.mountpoint.join(".ckptfs/stats.json")).unwrap();
    let stats: Value = serde_json::from_slice(&stats).unwrap();
    assert_eq!(found["stats"]["pid"], server.id());
    for what in ["/served", "/tiles", "/requests/reads", "/view"] {
        let (found, expected) = (found["stats"].pointer(what), stats.pointer(what));
        assert!(found.is_some() && found == expected, "{what}: {found:?}");
    }
    let readers = found["readers"].as_array().unwrap();
    let [reader] = &readers[..] else {
        panic!("{readers:?}")
    };
    assert_eq!(reader["pid"], held.id());
    assert_eq!(reader["name"], "sleep");
    assert_eq!(reader["how"], "open file");
    assert_eq!(reader["path"], fixture.shard().to_str().unwrap());
}

#[test]
fn people_are_told_the_same() {
    let fixture = Fixture::new();
    fixture.mount(Kind::PatchedFp8, &[]);
    let bytes = fs::read(fixture.shard()).unwrap();
    assert!(!bytes.is_empty());
    let output = ckptfs("status").arg(&fixture.mountpoint).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pid = fixture.serving_process().as_raw_nonzero().to_string();
    let mountpoint = fixture.mountpoint.to_str().unwrap();
    for part in [mountpoint, "serving", &pid, "--fp8", "computed", "0 errors"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_dead_mount_is_told_with_its_cure_and_does_not_hide_the_others() {
    let (dead, living) = (Fixture::new(), Fixture::new());
    let mut server = dead.serve(Kind::PatchedFp8);
    living.mount(Kind::Patched, &[]);
    server.signal(Signal::KILL);
    server.status();
    let (code, found) = status(&dead, &[]);
    assert_eq!((code, &found["state"]), (Some(1), &"dead".into()));
    let cure = format!("ckptfs unmount {}", dead.mountpoint.display());
    assert!(
        found["problem"].as_str().unwrap().contains(&cure),
        "{found}"
    );
    assert_eq!(found["code"], "dead-mount");
    assert_eq!(found["stats"], Value::Null);

    let (code, found) = status_of(&living.mountpoint, &[]);
    assert_eq!((code, &found["state"]), (Some(1), &"serving".into()));
    let (code, _) = status(&living, &[]);
    assert_eq!(code, Some(0));
    assert!(dead.unmount(&[]).status.success());
    assert_refused(
        &ckptfs("status").arg(&dead.mountpoint).output().unwrap(),
        &["nothing is mounted there"],
    );
}

#[test]
fn a_mount_that_does_not_answer_is_told_in_time_and_well_again_after() {
    let fixture = Fixture::new();
    let server = fixture.serve(Kind::PatchedFp8);
    server.signal(Signal::STOP);
    let (code, found) = status(&fixture, &["--timeout", "0.3"]);
    server.signal(Signal::CONT);
    assert_eq!((code, &found["state"]), (Some(1), &"silent".into()));
    assert_eq!(found["code"], "mount-hangs");
    let problem = found["problem"].as_str().unwrap();
    assert!(problem.contains("0.3 seconds"), "{problem}");
    eventually("it answers again", || status(&fixture, &[]).0 == Some(0));
}

#[test]
fn a_mount_of_another_user_is_told_without_its_figures() {
    let fixture = Fixture::new();
    // The program must be one that the other user can run.
    let program = fixture.path("ckptfs");
    fs::copy(env!("CARGO_BIN_EXE_ckptfs"), &program).unwrap();
    fs::set_permissions(fixture.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.mount(Kind::Patched, &[]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command
            .arg(&program)
            .args(["status", "--json"])
            .args(arguments);
        command.output().unwrap()
    };
    let found = entry(&run(&[]), &fixture.mountpoint);
    assert_eq!(found["state"], "unreadable");
    assert_eq!(found["code"], "permission-denied");
    assert!(
        found["problem"]
            .as_str()
            .unwrap()
            .contains("another user's")
    );
    let output = run(&[fixture.mountpoint.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(entry(&output, &fixture.mountpoint), found);
}

#[test]
fn a_mount_that_another_one_covers_is_told() {
    let fixture = Fixture::new();
    fixture.mount(Kind::Patched, &[]);
    let over = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&fixture.mountpoint)
        .status();
    assert!(over.unwrap().success());
    let (_, found) = status_of(&fixture.mountpoint, &[]);
    assert_eq!(found["state"], "covered");
    let output = ckptfs("status").arg(&fixture.mountpoint).output().unwrap();
    assert_refused(&output, &["tmpfs"]);
}

#[test]
fn what_is_no_mount_of_ours_is_refused() {
    let fixture = Fixture::new();
    let status = |path: &Path| ckptfs("status").arg(path).output().unwrap();
    assert_refused(&status(&fixture.mountpoint), &["nothing is mounted"]);
    assert_refused(&status(&fixture.path("missing")), &["no such directory"]);
    assert_refused(&status(Path::new("/proc")), &["of type proc"]);
    let wrong = ckptfs("status")
        .args(["--timeout", "soon"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

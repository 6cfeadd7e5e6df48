//! Mounts that do not answer: nobody who looks at one waits for it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::fixture::{Fixture, Kind, Server, assert_refused, ckptfs, eventually, stderr};

/// What `command` prints until it ends, as it must while the mount does not answer.
fn output_in_time(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    eventually(&format!("{command:?} ends"), || {
        child.try_wait().unwrap().is_some()
    });
    child.wait_with_output().unwrap()
}

/// `ckptfs` with these arguments.
fn program(arguments: &[&str]) -> Command {
    let mut command = ckptfs(arguments[0]);
    command.args(&arguments[1..]);
    command
}

/// Stops `server`, so that it answers nothing when this returns.
fn stop(server: &Server) {
    server.signal(Signal::STOP);
    eventually("it is stopped", || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        status.contains("State:\tT")
    });
}

/// A mount whose process was stopped, and what every message about it must hold.
fn stopped(fixture: &Fixture) -> (Server, Vec<String>) {
    let server = fixture.serve(Kind::Patched);
    let parts = stop_served(fixture, &server);
    (server, parts)
}

/// Stops the `server` of a mount; gives what every message about it must hold.
fn stop_served(fixture: &Fixture, server: &Server) -> Vec<String> {
    stop(server);
    vec![
        "does not answer".to_owned(),
        format!(
            "process {} ({} mount --foreground",
            server.id(),
            env!("CARGO_BIN_EXE_ckptfs")
        ),
        "is stopped".to_owned(),
        format!("ckptfs unmount --lazy {}", fixture.mountpoint.display()),
    ]
}

fn assert_names_it(output: &Output, parts: &[String]) {
    assert_refused(
        output,
        &parts.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn unmounting_names_the_process_and_lazily_unmounting_works() {
    let fixture = Fixture::new();
    let mut server = fixture.serve(Kind::Patched);
    // Whoever goes there once it is stopped waits.
    let mut sleep = Command::new("sleep");
    sleep.arg("1000").current_dir(&fixture.mountpoint);
    let mut sleep = sleep.spawn().unwrap();
    let mut parts = stop_served(&fixture, &server);
    let mountpoint = fixture.mountpoint.to_str().unwrap();
    parts.push("in use".to_owned());
    assert_names_it(&output_in_time(program(&["unmount", mountpoint])), &parts);
    assert!(fixture.is_mounted());
    let output = output_in_time(program(&["unmount", "--lazy", mountpoint]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!fixture.is_mounted());
    server.signal(Signal::CONT);
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert_eq!(server.status().code(), Some(0));
}

#[test]
fn what_nobody_uses_is_unmounted_without_an_answer() {
    let fixture = Fixture::new();
    let (mut server, _) = stopped(&fixture);
    let mountpoint = fixture.mountpoint.to_str().unwrap();
    let output = output_in_time(program(&["unmount", mountpoint]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!fixture.is_mounted());
    server.signal(Signal::CONT);
    assert_eq!(server.status().code(), Some(0));
}

#[test]
fn nothing_is_mounted_or_written_there_or_below() {
    let fixture = Fixture::new();
    let (_server, parts) = stopped(&fixture);
    let base = fixture.base.to_str().unwrap();
    let link = fixture.path("link");
    std::os::unix::fs::symlink(&fixture.mountpoint, &link).unwrap();
    let places = [
        fixture.mountpoint.clone(),
        fixture.mountpoint.join("tokenizer/deep"),
        fixture.mountpoint.join("new/place"),
        link.join("tokenizer"),
    ];
    for place in &places {
        let place = place.to_str().unwrap();
        let words = ["mount", "--base", base, place];
        assert_names_it(&output_in_time(program(&words)), &parts);
        let words = ["materialize", "--base", base, "--out", place];
        assert_names_it(&output_in_time(program(&words)), &parts);
    }
    let mut helper = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    helper.arg0("mount.ckptfs").arg(base).arg(&places[1]);
    let output = output_in_time(helper);
    assert_eq!(output.status.code(), Some(32), "{}", stderr(&output));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    crate::common::assert_names(&stderr(&output), &parts);
    assert!(fixture.is_mounted());
}

#[test]
fn its_state_is_shown_with_its_process() {
    let fixture = Fixture::new();
    let (_server, parts) = stopped(&fixture);
    let mountpoint = fixture.mountpoint.to_str().unwrap();
    let output = output_in_time(program(&["status", "--timeout", "0.5", mountpoint]));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let parts: Vec<&str> = parts[1..].iter().map(String::as_str).collect();
    crate::common::assert_names(&text, &parts);
    // With the others; a mount of another test may be there.
    let text = output_in_time(program(&["status", "--timeout", "0.5"])).stdout;
    crate::common::assert_names(&String::from_utf8(text).unwrap(), &parts);
    for command in ["status", "top"] {
        let below = fixture.mountpoint.join("tokenizer");
        let output = output_in_time(program(&[command, below.to_str().unwrap()]));
        assert_refused(&output, &parts);
    }
}

#[test]
fn a_mount_that_waits_for_its_sources_is_no_hindrance_either() {
    let [source, fixture] = [Fixture::new(), Fixture::new()];
    let served = source.serve(Kind::Patched);
    let base = source.mountpoint.to_str().unwrap();
    let mountpoint = fixture.mountpoint.to_str().unwrap();
    let words = [
        "mount",
        "--no-passthrough",
        "--threads",
        "1",
        "--base",
        base,
        mountpoint,
    ];
    let output = program(&words).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let server = fixture.serving_process().as_raw_nonzero();

    stop(&served);
    let mut cat = Command::new("cat");
    cat.arg(fixture.mountpoint.join("README.md"))
        .stdout(Stdio::null());
    let mut cat = cat.spawn().unwrap();
    eventually("the mount waits", || {
        let output = output_in_time(program(&["status", "--timeout", "0.2", mountpoint]));
        Path::new(&format!("/proc/{}", cat.id())).exists()
            && String::from_utf8(output.stdout)
                .unwrap()
                .contains("did not answer")
    });
    let output = output_in_time(program(&["unmount", mountpoint]));
    let process = format!("process {server} ({} mount", env!("CARGO_BIN_EXE_ckptfs"));
    let lazily = format!("ckptfs unmount --lazy {mountpoint}");
    assert_refused(&output, &["in use", "does not answer", &process, &lazily]);
    let output = output_in_time(program(&["unmount", "--lazy", mountpoint]));
    assert!(output.status.success(), "{}", stderr(&output));

    served.signal(Signal::CONT);
    assert!(cat.wait().unwrap().success());
}

#[test]
fn a_reader_is_told_what_it_waits_for_and_resumes_when_the_mount_answers() {
    let fixture = Fixture::new();
    let base = fixture.base.to_str().unwrap();
    let mount = fixture.mountpoint.to_str().unwrap();
    let out = fixture.path("out");
    let out = out.to_str().unwrap();
    let (server, parts) = stopped(&fixture);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    for words in [
        &["verify", mount][..],
        &["verify", "--base", base, "--out", mount],
        &["plan", "--base", mount],
        &["plan", "--base", base, "--extra", mount],
        &["report", "--base", base, "--diff", mount, "--out", out],
        &["diff", base, mount],
    ] {
        let mut reader = program(words);
        reader.stdin(Stdio::null()).stdout(Stdio::null());
        let mut reader = reader.stderr(Stdio::piped()).spawn().unwrap();
        let mut note = String::new();
        let mut stderr = BufReader::new(reader.stderr.take().unwrap());
        stderr.read_line(&mut note).unwrap();
        assert!(
            note.starts_with("note[mount-hangs]: waiting for an answer: "),
            "{note}"
        );
        crate::common::assert_names(&note, &parts);
        server.signal(Signal::CONT);
        stderr.read_to_string(&mut note).unwrap();
        // Bytes are compared with the base alone: there is a difference.
        assert!(reader.wait().unwrap().code().is_some(), "{words:?}: {note}");
        stop(&server);
    }
    let words = ["mount", "--base", base, "--log-file", out, mount];
    assert_refused(&output_in_time(program(&words)), &parts);
    server.signal(Signal::CONT);
}

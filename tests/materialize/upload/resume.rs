//! Runs that are stopped, and parts: what is complete is not sent again.

use std::process::{Child, Stdio};

use super::{FIRST, Job, OUT, PREFIX, SECOND, THIRD, count};
use crate::common::store_server::{Kind, Trouble};

/// A run that is stalled at a part of [`FIRST`] when the other shards are complete.
fn stalled(job: &Job) -> Child {
    job.server
        .trouble(&["PUT ", FIRST, "partNumber=2"], Trouble::Stall, 1);
    let mut command = job.command(&format!("materialize --base base --out {}", job.out));
    let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    job.server.wait_for_stalls(1);
    let recorded = |name: &str| {
        let objects = job.server.objects(PREFIX);
        objects.contains_key(&format!(".ckptfs-partial/objects/{name}.json"))
    };
    while !(recorded(SECOND) && recorded(THIRD)) {
        std::thread::yield_now();
    }
    child.unwrap()
}

fn check_resumed(job: &Job) {
    job.server.requests();
    let text = job.succeed(&format!("materialize --base base --out {}", job.out));
    assert!(text.contains("2 were complete"), "{text}");
    let requests = job.server.requests();
    assert_eq!(count(&requests, &["PUT ", FIRST, "partNumber"]), 3);
    assert_eq!(count(&requests, &["PUT ", "partNumber"]), 3);
    assert_eq!(count(&requests, &["PUT ", "m/model-00003"]), 0);
}

#[test]
fn a_run_that_is_killed_resumes_with_the_shards_that_are_missing() {
    for kind in Kind::ALL {
        let job = Job::at(kind);
        let mut child = stalled(&job);
        child.kill().unwrap();
        child.wait().unwrap();
        let objects = job.server.objects(PREFIX);
        assert!(!objects.contains_key("config.json") && !objects.contains_key(FIRST));
        // Nobody could end its upload.
        assert_eq!(job.server.open_uploads(), 1);
        check_resumed(&job);
        let expected = job.expected("");
        assert!(job.server.objects(PREFIX) == expected, "{kind:?}");
    }
}

#[test]
fn a_run_that_is_interrupted_ends_its_uploads_and_says_how_to_resume() {
    for kind in Kind::ALL {
        let job = Job::at(kind);
        let child = stalled(&job);
        let id = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(143), "{error}");
        assert!(error.contains("the same command again resumes"), "{error}");
        // Nothing ends uploads of Azure, which forgets their blocks by itself.
        let open = usize::from(kind == Kind::Azure);
        assert_eq!(job.server.open_uploads(), open, "{error}");
        check_resumed(&job);
        job.check("");
    }
}

#[test]
fn parts_are_written_at_once_and_then_finished() {
    let of_all = Kind::ALL.map(|kind| (kind, ""));
    for (kind, flags) in of_all.into_iter().chain([(Kind::S3, "--sha256")]) {
        let job = Job::at(kind);
        let out = &job.out;
        let commands = [1, 2, 3].map(|part| {
            let mut command = job.command(&format!(
                "materialize --base base {flags} --part {part}/3 --out {out}"
            ));
            command
                .stderr(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        for command in commands {
            let output = command.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{error}");
        }
        assert!(!job.server.objects(PREFIX).contains_key("config.json"));
        let text = job.succeed(&format!(
            "materialize --base base {flags} --finish --out {out}"
        ));
        assert!(text.contains("3 were complete"), "{text}");
        job.check(flags);
    }
}

#[test]
fn what_is_missing_before_the_end_is_named() {
    let job = Job::new();
    let finish = format!("materialize --base base --finish --out {OUT}");
    let error = job.fail(&finish);
    assert!(
        error.contains("no part of this view was written here"),
        "{error}"
    );
    job.succeed(&format!("materialize --base base --part 1/3 --out {OUT}"));
    job.succeed(&format!("materialize --base base --part 3/3 --out {OUT}"));
    let error = job.fail(&finish);
    assert!(
        error.contains("of 3 parts, these are not complete: 2 (0 of 1 shards)"),
        "{error}"
    );
    let error = job.fail(&format!("materialize --base base --part 2/4 --out {OUT}"));
    assert!(error.contains("it was begun in 3 parts"), "{error}");
    let error = job.fail(&format!("materialize --base base --out {OUT}"));
    assert!(error.contains("other-request"), "{error}");
    job.succeed(&format!("materialize --base base --part 2/3 --out {OUT}"));
    let error = job.fail(&format!(
        "materialize --base base --finish --sha256 --out {OUT}"
    ));
    assert!(
        error.contains("written without checksums: 1, 2, 3"),
        "{error}"
    );
    job.succeed(&finish);
    job.check("");
}

#[test]
fn a_run_of_another_view_starts_again_and_says_so() {
    let job = Job::new();
    job.server
        .trouble(&["PUT ", "tokenizer.json"], Trouble::Status(403), 1);
    job.fail(&format!("materialize --base base --out {OUT}"));
    let text = job.succeed(&format!("materialize --base base --dtype f16 --out {OUT}"));
    assert!(text.contains("starting again"), "{text}");
    job.check("--dtype f16");
}

#[test]
fn a_run_that_was_stopped_at_its_very_end_is_found_to_be_complete() {
    for flags in ["", "--finish"] {
        let job = Job::new();
        if flags == "--finish" {
            job.succeed(&format!("materialize --base base --part 1/1 --out {OUT}"));
        }
        // After one of the records was deleted.
        let record = format!("objects/{FIRST}.json");
        job.server
            .trouble(&["DELETE ", &record], Trouble::Status(403), 1);
        job.fail(&format!("materialize --base base {flags} --out {OUT}"));
        job.server
            .remove(&format!("{PREFIX}.ckptfs-partial/{record}"));
        job.server.requests();
        let text = job.succeed(&format!("materialize --base base {flags} --out {OUT}"));
        assert!(text.contains("8 were complete"), "{text}");
        assert_eq!(count(&job.server.requests(), &["PUT "]), 0);
        job.check("");
    }
}

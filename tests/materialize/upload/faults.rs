//! What goes wrong on the way: it is made good, or an error that leaves nothing that loaders take.

use super::{FIRST, Job, OUT, PREFIX, SECOND, THIRD, count};
use crate::common::store_server::{Kind, Trouble};

#[test]
fn requests_that_fail_for_a_while_are_made_again() {
    Kind::ALL.into_iter().for_each(check_made_again);
}

fn check_made_again(kind: Kind) {
    for (holds, trouble) in [
        (vec!["PUT ", FIRST, "partNumber=2"], Trouble::Status(503)),
        (vec!["PUT ", FIRST, "partNumber=1"], Trouble::Status(500)),
        (vec!["PUT ", SECOND, "partNumber=2"], Trouble::Cut),
        (vec!["PUT ", SECOND, "partNumber=1"], Trouble::LoseReply),
        (vec!["POST ", FIRST, "uploadId"], Trouble::LoseReply),
        (vec!["POST ", SECOND, "uploadId"], Trouble::Status(503)),
        (vec!["POST ", SECOND, "uploads"], Trouble::Status(429)),
        (vec!["PUT ", "request.json"], Trouble::LoseReply),
        (vec!["PUT ", "config.json"], Trouble::LoseReply),
        (vec!["GET ", "list-type"], Trouble::Cut),
        (vec!["DELETE ", "request.json"], Trouble::LoseReply),
    ] {
        // The clients of all stores share what is done about the others.
        if kind != Kind::S3 && trouble != Trouble::LoseReply {
            continue;
        }
        let job = Job::at(kind);
        let holds: Vec<&str> = holds;
        job.server.trouble(&holds, trouble, 2);
        let out = &job.out;
        job.succeed(&format!("materialize --base base --sha256 --out {out}"));
        job.check("--sha256");
    }
}

#[test]
fn refused_access_is_an_error_that_leaves_no_upload_and_nothing_to_load() {
    let job = Job::new();
    job.server
        .trouble(&["PUT ", FIRST, "partNumber=3"], Trouble::Status(403), 1);
    let error = job.fail(&format!("materialize --base base --jobs 1 --out {OUT}"));
    assert!(error.contains("access-denied"), "{error}");
    assert!(error.contains("write and delete objects"), "{error}");
    assert!(error.contains("the same command again resumes"), "{error}");
    assert_eq!(job.server.open_uploads(), 0);
    let objects = job.server.objects(PREFIX);
    assert!(!objects.contains_key("config.json") && !objects.contains_key(FIRST));
    job.succeed(&format!("materialize --base base --out {OUT}"));
    job.check("");
}

#[test]
fn a_store_that_does_not_answer_is_an_error_after_a_stated_time() {
    let job = Job::new();
    job.server
        .trouble(&["PUT ", SECOND, "partNumber=1"], Trouble::Stall, 100);
    let flags = "--network-timeout 2";
    let error = job.fail(&format!("materialize --base base {flags} --out {OUT}"));
    assert!(error.contains("unreachable"), "{error}");
    assert_eq!(job.server.open_uploads(), 0);
}

#[test]
fn an_upload_that_the_store_has_lost_is_an_error() {
    for kind in Kind::ALL {
        let job = Job::at(kind);
        let out = &job.out;
        job.server
            .trouble(&["POST ", SECOND, "uploadId"], Trouble::Status(404), 1);
        let error = job.fail(&format!("materialize --base base --out {out}"));
        assert!(
            error.contains("no longer has the parts"),
            "{kind:?}: {error}"
        );
        job.succeed(&format!("materialize --base base --out {out}"));
        job.check("");
    }
}

#[test]
fn an_object_that_another_run_replaced_is_noticed() {
    let job = Job::new();
    job.server
        .trouble(&["PUT ", "tokenizer.json"], Trouble::Status(403), 1);
    job.fail(&format!("materialize --base base --out {OUT}"));
    // Recorded, and not what was recorded.
    let path = format!("{PREFIX}{THIRD}");
    let mut content = job.server.objects(PREFIX).remove(THIRD).unwrap();
    *content.last_mut().unwrap() ^= 1;
    job.server.put(&path, content);
    job.server.requests();
    job.succeed(&format!("materialize --base base --out {OUT}"));
    let requests = job.server.requests();
    assert_eq!(count(&requests, &["PUT ", "m/model-00003"]), 1);
    assert_eq!(count(&requests, &["PUT ", "partNumber"]), 0);
    job.check("");
}

//! What may be written to, and what is replaced.

use super::{Job, OUT, PREFIX};
use crate::common::store_server::Kind;

#[test]
fn a_prefix_that_holds_something_is_replaced_only_if_asked_for() {
    Kind::ALL.into_iter().for_each(check_replaced);
}

fn check_replaced(kind: Kind) {
    let job = Job::at(kind);
    let out = &job.out;
    let siblings = [
        "bucket/models/m2/config.json",
        "bucket/models/m.txt",
        "bucket/models/other",
    ];
    for path in siblings {
        job.server.put(path, "sibling");
    }
    job.succeed(&format!("materialize --base base --dtype f32 --out {out}"));
    job.server
        .put(&format!("{PREFIX}sub/old.safetensors"), "old");
    let before = job.server.objects("bucket/");
    let error = job.fail(&format!("materialize --base base --out {out}"));
    assert!(
        error.contains("not-empty") && error.contains("--overwrite"),
        "{error}"
    );
    let error = job.fail(&format!("materialize --base base --part 1/2 --out {out}"));
    assert!(error.contains("not-empty"), "{error}");
    assert!(
        job.server.objects("bucket/") == before,
        "nothing was touched"
    );
    job.server.requests();
    job.succeed(&format!("materialize --base base --overwrite --out {out}"));
    job.check("");
    let requests = job.server.requests();
    let first = requests
        .iter()
        .find(|line| line.starts_with("DELETE") || line.starts_with("P"));
    let first = first.unwrap();
    assert!(
        first.contains("config.json") || first.contains("index.json"),
        "{first}"
    );
    for path in siblings {
        assert_eq!(
            job.server.objects("bucket/")[&path["bucket/".len()..]],
            b"sibling"
        );
    }
}

#[test]
fn parts_replace_what_the_prefix_holds() {
    let job = Job::new();
    job.succeed(&format!("materialize --base base --dtype f32 --out {OUT}"));
    job.server.put(&format!("{PREFIX}old.safetensors"), "old");
    for part in ["1/2", "2/2"] {
        job.succeed(&format!(
            "materialize --base base --overwrite --part {part} --out {OUT}"
        ));
        assert!(!job.server.objects(PREFIX).contains_key("config.json"));
    }
    let error = job.fail(&format!("materialize --base base --finish --out {OUT}"));
    assert!(error.contains("not-empty"), "{error}");
    job.succeed(&format!(
        "materialize --base base --finish --overwrite --out {OUT}"
    ));
    job.check("");
}

#[test]
fn a_place_that_cannot_be_written_to_is_refused() {
    let job = Job::new();
    for (flags, code, says) in [
        ("--out hf://org/m", "unsupported-place", "hf upload"),
        (
            "--out https://host/m",
            "unsupported-place",
            "s3://, gs:// and az://",
        ),
        ("--out s3://bucket", "bad-destination", "name a prefix"),
        (
            "--out s3://bucket/m?key=secret",
            "unsupported-place",
            "environment",
        ),
        ("--hardlink --out s3://bucket/m", "conflict", "--hardlink"),
        (
            "--weights-only --out s3://bucket/m",
            "conflict",
            "--weights-only",
        ),
        (
            "--facts-cache s3://bucket/f --out s3://bucket/m",
            "unsupported-place",
            "on this machine",
        ),
    ] {
        let error = job.fail(&format!("materialize --base base {flags}"));
        assert!(
            error.contains(code) && error.contains(says),
            "{flags}: {error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
    let error = job.fail("plan --base base --emit-stub s3://bucket/stub");
    assert!(error.contains("on this machine"), "{error}");
    assert_eq!(job.server.requests().len(), 0);
}

#[test]
fn a_source_is_not_written_to() {
    let job = Job::new();
    job.succeed(&format!("materialize --base base --out {OUT}"));
    let before = job.server.objects("bucket/");
    for (out, relation) in [
        ("s3://bucket/models/m", "this is s3"),
        ("s3://bucket/models/m/", "this is s3"),
        ("s3://bucket/models/m/sub", "is inside"),
        ("s3://bucket/models", "holds"),
    ] {
        let error = job.fail(&format!("materialize --base {OUT} --overwrite --out {out}"));
        assert!(error.contains("bad-destination"), "{error}");
        assert!(error.contains(relation), "{out}: {error}");
    }
    assert!(
        job.server.objects("bucket/") == before,
        "nothing was touched"
    );
    job.succeed(&format!(
        "materialize --base {OUT} --out s3://bucket/models/m2"
    ));
    let copy = job.server.objects("bucket/models/m2/");
    assert!(copy == job.server.objects(PREFIX));
}

//! The API as clients of the Hub call it.

use serde_json::{Value, json};

use crate::fixture::{Served, resolve};

fn paths(tree: &Value) -> Vec<&str> {
    let entries = tree.as_array().unwrap().iter();
    entries
        .map(|entry| entry["path"].as_str().unwrap())
        .collect()
}

#[test]
fn the_repository_is_at_one_commit_under_each_of_its_revisions() {
    let served = Served::new();
    let commit = served.serving.commit().to_owned();
    let mut client = served.connect();
    for url in [
        "/api/models/org/model".to_owned(),
        "/api/models/org/model/revision/main".to_owned(),
        format!("/api/models/org/model/revision/{commit}"),
    ] {
        let response = client.get(&format!("GET {url}?blobs=true"), &[]);
        let model = response.json();
        assert_eq!(
            (response.status, &model["sha"]),
            (200, &json!(commit)),
            "{url}"
        );
        assert_eq!(model["id"], "org/model");
        let siblings = model["siblings"].as_array().unwrap();
        assert_eq!(siblings.len(), served.files().len());
        let readme = siblings
            .iter()
            .find(|file| file["rfilename"] == "README.md");
        assert_eq!(readme.unwrap()["size"], 10);
    }
}

#[test]
fn the_tree_has_sizes_and_the_tags_of_the_files() {
    let served = Served::new();
    let mut client = served.connect();
    let tree = client.get(
        "GET /api/models/org/model/tree/main?recursive=True&expand=False",
        &[],
    );
    let tree = tree.json();
    for (path, bytes) in served.files() {
        let entries = tree.as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["path"] == *path).unwrap();
        assert_eq!(
            (&entry["type"], &entry["size"]),
            (&json!("file"), &json!(bytes.len()))
        );
        assert_eq!(entry.get("lfs"), None);
        let head = client.get(&format!("HEAD {}", resolve("main", &path)), &[]);
        let tag = format!("\"{}\"", entry["oid"].as_str().unwrap());
        assert_eq!(head.header("etag"), Some(&*tag));
    }
    let top = client
        .get("GET /api/models/org/model/tree/main", &[])
        .json();
    assert!(paths(&top).contains(&"extra"));
    assert!(!paths(&top).iter().any(|path| path.contains('/')), "{top}");
    let deep = client
        .get("GET /api/models/org/model/tree/main/extra%2Fdeep", &[])
        .json();
    assert_eq!(paths(&deep), ["extra/deep/notes 100% #1.txt"]);
}

#[test]
fn paths_are_looked_up_by_form_and_by_json() {
    let served = Served::new();
    for (kind, body) in [
        (
            "application/x-www-form-urlencoded",
            "paths=README.md&paths=extra%2Fdeep%2Fnotes+100%25+%231.txt&paths=none&expand=False",
        ),
        (
            "application/json",
            r#"{"paths": ["README.md", "extra/deep/notes 100% #1.txt", "none"], "expand": false}"#,
        ),
    ] {
        let mut client = served.connect();
        let (kind, length) = (
            format!("Content-Type: {kind}"),
            format!("Content-Length: {}", body.len()),
        );
        client.ask(
            "POST /api/models/org/model/paths-info/main",
            &[&kind, &length],
        );
        client.send(body).unwrap();
        let found = client.response(false).unwrap().json();
        assert_eq!(paths(&found), ["README.md", "extra/deep/notes 100% #1.txt"]);
    }
}

#[test]
fn what_is_missing_has_the_codes_that_clients_tell_apart() {
    let served = Served::new();
    let mut client = served.connect();
    for (url, code) in [
        ("/org/model/resolve/main/none.json", Some("EntryNotFound")),
        (
            "/api/models/org/model/tree/main/none",
            Some("EntryNotFound"),
        ),
        (
            "/org/model/resolve/v1.0/README.md",
            Some("RevisionNotFound"),
        ),
        (
            "/api/models/org/model/revision/refs%2Fpr%2F1",
            Some("RevisionNotFound"),
        ),
        ("/other/model/resolve/main/README.md", Some("RepoNotFound")),
        (
            "/datasets/org/model/resolve/main/README.md",
            Some("RepoNotFound"),
        ),
        ("/api/models/other/model", Some("RepoNotFound")),
        ("/api/datasets/org/model", Some("RepoNotFound")),
        ("/api/whoami-v2", None),
    ] {
        for method in ["GET", "HEAD"] {
            let response = client.get(&format!("{method} {url}"), &[]);
            assert_eq!(
                (response.status, response.header("x-error-code")),
                (404, code),
                "{url}"
            );
            // By which clients keep in mind that the file is not there.
            let commit = response.header("x-repo-commit");
            assert_eq!(commit, Some(served.serving.commit()));
        }
    }
}

#[test]
fn branches_and_history_have_the_commit() {
    let served = Served::new();
    let refs = served.get("GET /api/models/org/model/refs", &[]).json();
    assert_eq!(refs["branches"][0]["targetCommit"], served.serving.commit());
    let commits = served
        .get("GET /api/models/org/model/commits/main", &[])
        .json();
    assert_eq!(commits[0]["id"], served.serving.commit());
}

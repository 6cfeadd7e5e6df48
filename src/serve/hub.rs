//! The JSON that the API of the Hub answers with, as far as clients that download read it.
//!
//! Files have a git checksum there (`oid`), which is also their entity tag. Here both are the tag of
//! the file. None is said to be in LFS or Xet: that would promise a SHA-256 of its content.

use serde_json::{Value, json};

use crate::serve::etag::Etag;
use crate::serve::files::{Entry, Files};
use crate::serve::repo::RepoName;

/// The branch.
pub(super) const BRANCH: &str = "main";

/// Whether `revision` is the one that is served.
pub(super) fn is_served(revision: &str, files: &Files) -> bool {
    [BRANCH, "HEAD", files.commit()].contains(&revision)
}

/// The repository. With `blobs`, files have sizes.
pub(super) fn model(name: &RepoName, files: &Files, blobs: bool) -> Value {
    let siblings = files.all().filter_map(|(path, file)| {
        let path = std::str::from_utf8(path).ok()?;
        Some(if blobs {
            json!({"rfilename": path, "size": file.len, "blobId": file.tag.as_str()})
        } else {
            json!({"rfilename": path})
        })
    });
    let siblings: Vec<Value> = siblings.collect();
    let author = name.parts().next();
    json!({
        "_id": &files.commit()[..24],
        "id": name.as_str(),
        "modelId": name.as_str(),
        "author": author,
        "sha": files.commit(),
        "private": false,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    })
}

/// What is below the directory `path`.
pub(super) fn tree(files: &Files, path: &[u8], recursive: bool) -> Value {
    let below = files.below(path, recursive).into_iter();
    below
        .filter_map(|(path, entry)| tree_entry(path, entry))
        .collect()
}

/// Those of `paths` that there are.
pub(super) fn paths(files: &Files, paths: &[Vec<u8>]) -> Value {
    let found = paths
        .iter()
        .filter_map(|path| Some((path, files.get(path)?)));
    found
        .filter_map(|(path, entry)| tree_entry(path, entry))
        .collect()
}

/// None for a path that JSON cannot hold.
fn tree_entry(path: &[u8], entry: Entry<'_>) -> Option<Value> {
    let text = std::str::from_utf8(path).ok()?;
    Some(match entry {
        Entry::File(file) => json!({
            "type": "file",
            "path": text,
            "size": file.len,
            "oid": file.tag.as_str(),
        }),
        Entry::Directory => json!({
            "type": "directory",
            "path": text,
            "size": 0,
            "oid": Etag::of_directory(path).as_str(),
        }),
    })
}

/// Branches and tags.
pub(super) fn refs(files: &Files) -> Value {
    json!({
        "branches": [{
            "name": BRANCH,
            "ref": format!("refs/heads/{BRANCH}"),
            "targetCommit": files.commit(),
        }],
        "converts": [],
        "tags": [],
        "pullRequests": [],
    })
}

/// The history: one commit. Files have no date of their own, so this has the first that there is.
pub(super) fn commits(files: &Files) -> Value {
    json!([{
        "id": files.commit(),
        "title": "A view of ckptfs",
        "message": "",
        "date": "1970-01-01T00:00:00.000Z",
        "authors": [],
    }])
}

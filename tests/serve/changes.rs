//! Sources that change while a view of them is served.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use crate::fixture::{LARGE, LARGE_BYTES, Served, options, resolve};

/// Changes the file at `path` in place, and its time with it.
fn change(path: &std::path::Path) {
    let file = File::options().write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    file.write_all_at(b"changed", at).unwrap();
    let later = SystemTime::now() + Duration::from_secs(10);
    file.set_modified(later).unwrap();
}

#[test]
fn a_source_that_changed_is_an_error_and_no_other_bytes() {
    let served = Served::new();
    let (path, _) = served.shard();
    let url = format!("GET {}", resolve("main", &path));
    assert_eq!(served.get(&url, &["Range: bytes=0-0"]).status, 206);
    let source = served.base.join(&path);
    change(&source);
    let mut client = served.connect();
    // Past what was made when the view was planned.
    let response = client.get(&url, &["Range: bytes=100000-200000"]);
    assert_eq!((response.status, response.header("etag")), (500, None));
    assert!(
        !response.text().contains(source.to_str().unwrap()),
        "{}",
        response.text()
    );
    // The rest of the view, on the same connection, is served as ever.
    assert_eq!(client.get("GET /README.md", &[]).text(), "# A model\n");
}

#[test]
fn a_transfer_whose_source_changes_ends_short() {
    let served = Served::with_large(options());
    let mut client = served.begin_large();
    assert!(client.bytes(1 << 20).unwrap().iter().all(|&byte| byte == 0));
    change(&served.base.join(LARGE));
    // Bytes that are on their way come; what is read from here on does not.
    assert!(client.bytes(LARGE_BYTES - (1 << 20)).is_err());
    assert_eq!(served.get("GET /README.md", &[]).status, 200);
}

#[test]
fn a_source_that_is_gone_is_an_error() {
    let served = Served::new();
    fs::remove_file(served.base.join("README.md")).unwrap();
    assert_eq!(served.get("GET /README.md", &[]).status, 500);
    assert_eq!(served.get("HEAD /README.md", &[]).status, 200);
}

//! Bytes, ranges and conditions of files.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::Client;
use crate::fixture::{Served, encoded, plan, resolve, serving};

#[test]
fn every_file_is_what_a_reader_of_the_view_gives_under_every_address() {
    let served = Served::new();
    let commit = served.serving.commit().to_owned();
    let mut client = served.connect();
    for (path, expected) in served.files() {
        for url in [
            resolve("main", &path),
            resolve(&commit, &path),
            format!("/{}", encoded(&path)),
        ] {
            let response = client.get(&format!("GET {url}"), &[]);
            assert_eq!((response.status, &response.body), (200, &expected), "{url}");
            assert_eq!(response.header("x-repo-commit"), Some(&*commit));
            assert_eq!(response.header("accept-ranges"), Some("bytes"));
            assert_eq!(response.header("content-encoding"), None);
            let head = client.get(&format!("HEAD {url}"), &[]);
            let length = expected.len().to_string();
            assert_eq!(
                (head.status, head.header("content-length")),
                (200, Some(&*length))
            );
            assert_eq!(head.header("etag"), response.header("etag"));
        }
    }
}

#[test]
fn ranges_are_the_bytes_of_the_file() {
    let served = Served::new();
    let (path, whole) = served.shard();
    let len = whole.len();
    let url = format!("GET {}", resolve("main", &path));
    let mut client = served.connect();
    let piece = 1 << 20;
    for (range, from, to) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=0-".to_owned(), 0, len),
        (
            format!("bytes={}-{}", piece - 3, piece + 2),
            piece - 3,
            piece + 3,
        ),
        (format!("bytes=17-{}", 2 * piece + 1), 17, 2 * piece + 2),
        (format!("bytes=-{}", 1000), len - 1000, len),
        (format!("bytes=-{}", len + 5), 0, len),
        (format!("bytes={}-{}", len - 1, u64::MAX), len - 1, len),
        (
            format!("bytes={}-99999999999999999999999", len - 2),
            len - 2,
            len,
        ),
        ("BYTES=5-6".to_owned(), 5, 7),
    ] {
        let response = client.get(&url, &[&format!("Range: {range}")]);
        assert_eq!(response.status, 206, "{range}");
        assert!(response.body == whole[from..to], "{range}");
        let shown = format!("bytes {from}-{}/{len}", to - 1);
        assert_eq!(response.header("content-range"), Some(&*shown), "{range}");
    }
}

#[test]
fn a_range_past_the_end_is_416_with_the_length() {
    let served = Served::new();
    let (path, whole) = served.shard();
    let url = format!("GET {}", resolve("main", &path));
    for range in [
        format!("bytes={}-", whole.len()),
        format!("bytes={}-{}", whole.len() + 1, whole.len() + 7),
        "bytes=-0".to_owned(),
    ] {
        let response = served.get(&url, &[&format!("Range: {range}")]);
        assert_eq!(response.status, 416, "{range}");
        let shown = format!("bytes */{}", whole.len());
        assert_eq!(response.header("content-range"), Some(&*shown));
    }
}

#[test]
fn ranges_that_are_several_or_not_valid_give_the_whole_file() {
    let served = Served::new();
    let url = format!("GET {}", resolve("main", "README.md"));
    for range in [
        "Range: bytes=0-1,3-4",
        "Range: bytes=4-3",
        "Range: bytes=a-b",
        "Range: bytes",
        "Range: lines=0-1",
        "Range: bytes=--1",
        "Range: bytes=1-x",
        "Range: ",
        "Range: bytes=0-1\r\nRange: bytes=2-3",
    ] {
        let response = served.get(&url, &[range]);
        assert_eq!(
            (response.status, response.text()),
            (200, "# A model\n"),
            "{range}"
        );
    }
}

#[test]
fn clients_that_have_a_file_are_told_so_and_a_range_of_another_file_is_not_sent() {
    let served = Served::new();
    let url = format!("GET {}", resolve("main", "README.md"));
    let tag = served.get(&url, &[]).header("etag").unwrap().to_owned();
    assert_eq!(
        tag.len(),
        42,
        "a SHA-256 would be taken for the content's: {tag}"
    );
    for (headers, status) in [
        (vec![format!("If-None-Match: {tag}")], 304),
        (vec![format!("If-None-Match: \"x\", W/{tag}")], 304),
        (vec!["If-None-Match: *".to_owned()], 304),
        (vec!["If-None-Match: \"x\"".to_owned()], 200),
        (vec![format!("If-Match: \"x\", {tag}")], 200),
        (vec![format!("If-Match: W/{tag}")], 412),
        (vec!["If-Match: \"x\"".to_owned()], 412),
        (
            vec!["Range: bytes=0-1".to_owned(), format!("If-Range: {tag}")],
            206,
        ),
        (
            vec!["Range: bytes=0-1".to_owned(), "If-Range: \"x\"".to_owned()],
            200,
        ),
        (
            vec!["Range: bytes=0-1".to_owned(), format!("If-Range: W/{tag}")],
            200,
        ),
        (
            vec![
                "Range: bytes=0-1".to_owned(),
                "If-Range: Mon, 30 Nov 2026 03:00:00 GMT".to_owned(),
            ],
            200,
        ),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let response = served.get(&url, &headers);
        assert_eq!(response.status, status, "{headers:?}");
        assert_eq!(response.header("etag"), Some(&*tag));
    }
}

#[test]
fn tags_and_commit_are_the_same_in_another_process_and_differ_where_the_view_does() {
    let served = Served::new();
    let again = serving(&plan(&served.base), crate::fixture::options());
    assert_eq!(again.commit(), served.serving.commit());
    assert_eq!(again.commit().len(), 40);
    let tag = |address, path: &str| {
        let request = format!("HEAD {}", resolve("main", path));
        let response = Client::connect(address).get(&request, &[]);
        response.header("etag").unwrap().to_owned()
    };
    let (shard, _) = served.shard();
    assert_eq!(tag(again.address(), &shard), tag(served.address(), &shard));

    // Without quantizing, the shard is another one, and the others are as they were.
    let request = ckptfs::recipe::ViewRequest::new(&served.base);
    let other = serving(&request.plan().unwrap(), crate::fixture::options());
    assert_ne!(other.commit(), served.serving.commit());
    assert_ne!(tag(other.address(), &shard), tag(served.address(), &shard));
    assert_eq!(
        tag(other.address(), "README.md"),
        tag(served.address(), "README.md")
    );
}

#[test]
fn a_file_that_is_written_again_has_another_tag() {
    let served = Served::new();
    let readme = served.base.join("README.md");
    // As long as before.
    std::fs::rename(&readme, served.base.join("old.md")).unwrap();
    std::fs::write(&readme, "# B model\n").unwrap();
    let again = serving(&plan(&served.base), crate::fixture::options());
    let tag = |address| {
        let request = format!("HEAD {}", resolve("main", "README.md"));
        let response = Client::connect(address).get(&request, &[]);
        response.header("etag").unwrap().to_owned()
    };
    assert_ne!(tag(again.address()), tag(served.address()));
    assert_ne!(again.commit(), served.serving.commit());
}

#[test]
fn pages_list_directories_with_links_that_work() {
    let served = Served::new();
    let mut client = served.connect();
    let page = client.get("GET /", &[]);
    assert_eq!(page.status, 200);
    assert!(
        page.text().contains("<a href=\"./README.md\">"),
        "{}",
        page.text()
    );
    assert!(
        page.text().contains("<a href=\"./extra/\">"),
        "{}",
        page.text()
    );
    let moved = client.get("GET /org/model", &[]);
    assert_eq!(
        (moved.status, moved.header("location")),
        (307, Some("/org/model/resolve/main/"))
    );
    let page = client.get("GET /org/model/resolve/main/", &[]);
    assert!(
        page.text().contains("<a href=\"./README.md\">"),
        "{}",
        page.text()
    );
    let moved = client.get("GET /extra/deep", &[]);
    assert_eq!(
        (moved.status, moved.header("location")),
        (307, Some("/extra/deep/"))
    );
    let page = client.get("GET /extra/deep/", &[]);
    let (_, link) = page.text().split_once("href=\"./").unwrap();
    let (link, _) = link.split_once('"').unwrap();
    let file = client.get(&format!("GET /extra/deep/{link}"), &[]);
    assert_eq!((file.status, file.text()), (200, "some notes\n"));
}

#[test]
fn a_client_of_http_1_0_gets_the_file_and_the_end_of_the_connection() {
    let served = Served::new();
    let mut stream = TcpStream::connect(served.address()).unwrap();
    stream
        .write_all(b"GET /README.md HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("\r\n\r\n# A model\n"), "{text}");
}

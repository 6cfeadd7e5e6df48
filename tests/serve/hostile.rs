//! Paths and heads that no honest client sends.

use std::fs;

use crate::fixture::Served;

#[test]
fn no_path_leads_out_of_the_view() {
    let served = Served::new();
    fs::write(served.workspace().path().join("secret"), "secret").unwrap();
    let mut client = served.connect();
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/extra/../../secret",
        "/extra/%2e%2e%2f%2e%2e%2fsecret",
        "/org/model/resolve/main/../secret",
        "/org/model/resolve/main/%2e%2e/%2e%2e/secret",
        "/org/model/resolve/main//etc/passwd",
        "/org/model/resolve/main/%2fetc/passwd",
        "//etc/passwd",
        "/README.md%00.txt",
        "/README.md%0",
        "/README.md%zz",
        "/.",
        "/extra/./deep/",
        "/org/model/resolve/%0d%0aX:%20y/README.md",
        "/api/models/org/model/tree/main/..%2f..",
    ] {
        for method in ["GET", "HEAD"] {
            let response = client.get(&format!("{method} {path}"), &[]);
            assert_eq!(response.status, 400, "{path}");
            assert!(
                !String::from_utf8_lossy(&response.body).contains("secret"),
                "{path}"
            );
        }
    }
}

#[test]
fn methods_that_write_are_refused() {
    let served = Served::new();
    for method in ["PUT", "DELETE", "PATCH", "POST", "OPTIONS", "BREW"] {
        let response = served.get(&format!("{method} /README.md"), &["Content-Length: 0"]);
        assert_eq!(
            (response.status, response.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
}

#[test]
fn heads_that_are_wrong_or_too_large_end_the_connection_and_not_the_server() {
    let served = Served::new();
    let long = "x".repeat(200 << 10);
    let many: String = (0..1000).map(|n| format!("X-{n}: y\r\n")).collect();
    for head in [
        "\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{many}\r\n"),
        "\0\0\0\0".to_owned(),
    ] {
        let mut client = served.connect();
        // The server may have closed it before all was sent.
        let _ = client.send(&head);
        let _ = client.send("\r\n\r\n");
        let answer = client.rest().unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{:?}: {answer}",
            &head[..head.len().min(80)]
        );
        assert_eq!(served.get("GET /README.md", &[]).text(), "# A model\n");
    }
}

#[test]
fn a_body_that_is_too_large_or_nonsense_is_refused() {
    let served = Served::new();
    let ask = |body: &[u8], kind: &str| {
        let mut client = served.connect();
        let (kind, length) = (
            format!("Content-Type: {kind}"),
            format!("Content-Length: {}", body.len()),
        );
        client.ask(
            "POST /api/models/org/model/paths-info/main",
            &[&kind, &length],
        );
        let _ = client.send(body);
        client.head().map(|head| head.status)
    };
    assert_eq!(ask(b"{", "application/json").unwrap(), 400);
    assert_eq!(ask(b"\xff", "text/plain").unwrap(), 400);
    // The answer is lost where the connection ends before all was sent.
    let too_large = ask(&vec![b'a'; 2 << 20], "text/plain");
    assert!(!matches!(too_large, Ok(status) if status != 413));
    assert_eq!(served.get("GET /README.md", &[]).status, 200);
}

//! Servers with certificates: one that is not trusted is an error at once, with what to do about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::base;
use crate::common::store_server::Kind;
use crate::common::web_server::WebServer;
use crate::common::{Workspace, assert_names};

const AUTHORITY: &str = "authority.pem";

fn certificate(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/common/certificates").join(name)
}

/// Runs the program, which trusts the certificates of the file `trusted` alone.
fn ckptfs(workspace: &Workspace, server: &WebServer, trusted: &Path, arguments: &[&str]) -> Output {
    let stores = Kind::ALL.map(|kind| kind.settings(&server.url()));
    Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .args(arguments)
        .current_dir(workspace.path())
        .envs(stores.into_iter().flatten())
        .env("HF_ENDPOINT", server.url())
        .env("HF_HUB_CACHE", workspace.path().join("no-cache"))
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_TOKEN")
        .output()
        .unwrap()
}

/// Sources of every kind that `server` is asked for.
fn urls(server: &WebServer) -> [String; 5] {
    [
        format!("{}/plain/base", server.url()),
        "s3://bucket/models/base".to_owned(),
        "gs://bucket/models/base".to_owned(),
        "az://bucket/models/base".to_owned(),
        "hf://org/base".to_owned(),
    ]
}

#[test]
fn a_source_whose_authority_is_trusted_is_read() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let server = WebServer::start_encrypted("localhost.pem");
    super::put(&server, &directory, "base");
    for url in urls(&server).iter().filter(|url| !url.starts_with("az:")) {
        let run =
            |arguments: &[&str]| ckptfs(&workspace, &server, &certificate(AUTHORITY), arguments);
        let output = run(&["diff", "base", url]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{url}: {text}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_an_error_at_once() {
    let workspace = Workspace::new();
    workspace.write("base", &base());
    for (presented, trusted, reason, to_do) in [
        // A private authority that nobody trusts.
        (
            "localhost.pem",
            "other-name.pem",
            "no authority",
            "SSL_CERT_FILE",
        ),
        (
            "other-name.pem",
            AUTHORITY,
            "elsewhere.example",
            "use a name",
        ),
        ("expired.pem", AUTHORITY, "expired", "new certificate"),
        (
            "self-signed.pem",
            "self-signed.pem",
            "of an authority",
            "has signed",
        ),
    ] {
        let trusted = certificate(trusted);
        let sources = ["https", "s3", "gs", "az", "hf"].map(|scheme| (scheme, true));
        let outputs = ["s3", "gs", "az"].map(|scheme| (scheme, false));
        for (scheme, is_source) in sources.into_iter().chain(outputs) {
            // One for each run: the connections of another may be counted when that has ended.
            let server = WebServer::start_encrypted(presented);
            let mut urls = urls(&server).into_iter();
            let url = urls.find(|url| url.starts_with(scheme)).unwrap();
            let words = match is_source {
                true => vec!["plan", "--base", &url],
                false => vec!["materialize", "--base", "base", "--out", &url],
            };
            let output = ckptfs(&workspace, &server, &trusted, &words);
            let text = String::from_utf8(output.stderr).unwrap();
            // Another run would not work either.
            assert_eq!(
                output.status.code(),
                Some(1),
                "{presented} {words:?}: {text}"
            );
            let named = match url.strip_prefix("hf://") {
                Some(_) => server.url(),
                None => url.clone(),
            };
            let parts = ["untrusted-server", &*named, &*server.url(), reason, to_do];
            assert_names(&text, &parts);
            // A web server is asked for many names at once, and never for one of them twice.
            let most = if url.starts_with("https") { 40 } else { 1 };
            let begun = server.handshakes();
            assert!(
                (1..=most).contains(&begun),
                "{words:?}: {begun} connections"
            );
            assert!(server.requests().is_empty(), "nothing may be sent to it");
        }
    }
}

#[test]
fn a_machine_that_trusts_no_certificate_says_so() {
    let workspace = Workspace::new();
    let server = WebServer::start_encrypted("localhost.pem");
    let url = format!("{}/plain/base", server.url());
    let output = ckptfs(
        &workspace,
        &server,
        Path::new("/dev/null"),
        &["plan", "--base", &url],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_names(
        &text,
        &["untrusted-server", "ca-certificates", "SSL_CERT_FILE"],
    );
}

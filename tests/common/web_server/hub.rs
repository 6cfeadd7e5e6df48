//! The Hub: its API, and where it sends clients for large files.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::files::file;
use super::request::Request;
use super::response::{Response, status};
use super::{COMMIT, State, Stored, TOKEN, Trouble, page};

/// Repositories are `hub/org/model/…`; those of `gated` and `private` need the token, and the first its
/// conditions accepted, too.
fn refused(request: &Request, repository: &str) -> Option<Response> {
    let has_token = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
    match repository.split('/').next() {
        Some("gated") => Some(status(403, &[("x-error-code", "GatedRepo")])),
        Some("private") if !has_token => Some(status(401, &[("x-error-code", "RepoNotFound")])),
        _ => None,
    }
}

pub(super) fn api(state: &State, request: &Request, rest: &str) -> Response {
    let parts: Vec<&str> = rest.splitn(4, '/').collect();
    let [organization, model, what, revision] = parts[..] else {
        return status(404, &[]);
    };
    let repository = format!("{organization}/{model}");
    if let Some(response) = refused(request, &repository) {
        return response;
    }
    let files = state.files.lock().unwrap();
    let prefix = format!("hub/{repository}/");
    let of_repository: Vec<(&String, &Stored)> = files
        .iter()
        .filter(|(path, _)| path.starts_with(&prefix))
        .collect();
    if of_repository.is_empty() {
        return status(404, &[("x-error-code", "RepoNotFound")]);
    }
    if !matches!(revision, "main" | "v1" | "refs/pr/3") && revision != COMMIT {
        return status(404, &[("x-error-code", "RevisionNotFound")]);
    }
    if what == "revision" {
        let mut response = status(200, &[]);
        response.body = format!("{{\"sha\": \"{COMMIT}\"}}").into_bytes();
        return response;
    }
    let page = page(of_repository.len());
    let start: usize = request
        .query
        .rsplit_once("cursor=")
        .map_or(0, |(_, at)| at.parse().unwrap());
    let entries = of_repository.iter().skip(start).take(page).map(|(path, content)| {
        let path = &path[prefix.len()..];
        let (len, hash) = (content.content.len(), &content.hash);
        if is_large(path) {
            format!("{{\"type\":\"file\",\"path\":\"{path}\",\"size\":{len},\"oid\":\"pointer\",\"lfs\":{{\"oid\":\"{hash}\",\"size\":{len}}}}}")
        } else {
            format!("{{\"type\":\"file\",\"path\":\"{path}\",\"size\":{len},\"oid\":\"{}\"}}", &hash[..40])
        }
    });
    let body = format!("[{}]", entries.collect::<Vec<_>>().join(","));
    let mut response = status(200, &[]);
    if start + page < of_repository.len() {
        let next = format!(
            "</{}?recursive=true&cursor={}>; rel=\"next\"",
            request.path,
            start + page
        );
        response.headers.push(("link".to_owned(), next));
    }
    response.body = body.into_bytes();
    response
}

pub(super) fn is_large(path: &str) -> bool {
    [".safetensors", ".bin", ".gguf"]
        .iter()
        .any(|end| path.ends_with(end))
}

pub(super) fn resolve(
    state: &State,
    request: &Request,
    repository: &str,
    rest: &str,
    second: SocketAddr,
    trouble: Option<Trouble>,
) -> Response {
    if let Some(response) = refused(request, repository) {
        return response;
    }
    let (_, path) = rest.split_once('/').unwrap();
    let files = state.files.lock().unwrap();
    let Some(content) = files.get(&format!("hub/{repository}/{path}")) else {
        return status(404, &[("x-error-code", "EntryNotFound")]);
    };
    let Stored { content, hash } = content;
    let len = content.len().to_string();
    if !is_large(path) {
        let tag = format!("\"{}\"", &hash[..40]);
        let mut response = file(state, request, content, Some(tag), trouble);
        response
            .headers
            .push(("x-repo-commit".to_owned(), COMMIT.to_owned()));
        return response;
    }
    let number = state.signed.fetch_add(1, Ordering::Relaxed) + 1;
    let target = format!("http://{second}/{repository}/{path}?signature={number}");
    status(
        302,
        &[
            ("location", &target),
            ("x-repo-commit", COMMIT),
            ("x-linked-etag", &format!("\"{hash}\"")),
            ("x-linked-size", &len),
        ],
    )
}

pub(super) fn signed(state: &State, request: &Request, trouble: Option<Trouble>) -> Response {
    let number: u64 = request
        .query
        .strip_prefix("signature=")
        .unwrap()
        .parse()
        .unwrap();
    if number <= state.expired.load(Ordering::Relaxed) || request.header("authorization").is_some()
    {
        return status(403, &[]);
    }
    let files = state.files.lock().unwrap();
    match files.get(&format!("hub/{}", request.path)) {
        Some(stored) => file(state, request, &stored.content, None, trouble),
        None => status(404, &[]),
    }
}

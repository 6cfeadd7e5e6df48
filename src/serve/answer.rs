//! What each request is answered with.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use crate::serve::body::{Content, Source, Transfer};
use crate::serve::etag::{Outcome, outcome, range_fits};
use crate::serve::files::{Entry, File, Files};
use crate::serve::ranges::{Requested, requested};
use crate::serve::repo::RepoName;
use crate::serve::routes::{Api, Route, route};
use crate::serve::token::Token;
use crate::serve::{form, hub, listing};
use crate::shown::Show;

/// What clients of the Hub know the state of a repository by.
const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
/// What they tell errors apart by.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Bytes of a body that is read, and how long it may take.
const MAX_BODY: usize = 1 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Answers requests about a view.
#[derive(Debug)]
pub(super) struct Answers {
    name: RepoName,
    token: Option<Token>,
    files: Files,
    source: Arc<Source>,
    /// All files as JSON, which every download asks for.
    tree: OnceLock<Bytes>,
}

type Answer = Response<Content>;

impl Answers {
    pub(super) fn new(
        name: RepoName,
        token: Option<Token>,
        files: Files,
        source: Arc<Source>,
    ) -> Self {
        Answers {
            name,
            token,
            files,
            source,
            tree: OnceLock::new(),
        }
    }

    pub(super) fn commit(&self) -> &str {
        self.files.commit()
    }

    /// The answer to `request`. Once the server is `full`, the connection is closed after it.
    pub(super) async fn answer(&self, request: Request<Incoming>, full: bool) -> Answer {
        let is_head = request.method() == Method::HEAD;
        let mut answer = self.found(request).await;
        let length = answer.body().size_hint().exact();
        let headers = answer.headers_mut();
        if let Ok(commit) = HeaderValue::from_str(self.files.commit()) {
            headers.insert(REPO_COMMIT, commit);
        }
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if full {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if is_head {
            // That of a file is known already.
            if let Some(length) = length
                && !headers.contains_key(header::CONTENT_LENGTH)
            {
                headers.insert(header::CONTENT_LENGTH, length.into());
            }
            *answer.body_mut() = Content::none();
        }
        answer
    }

    async fn found(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if let Some(answer) = self.refused(&head.headers) {
            return answer;
        }
        let route = route(head.uri.path(), &self.name);
        let is_read = matches!(head.method, Method::GET | Method::HEAD);
        match (route, &head.method) {
            (Route::Api(Api::Paths { revision }), &Method::POST) => {
                self.paths(&revision, &head.headers, body).await
            }
            (_, method) if !is_read => {
                let problem = format!("{method}: this server is read-only");
                let mut answer = failed(StatusCode::METHOD_NOT_ALLOWED, None, &problem);
                let allow = HeaderValue::from_static("GET, HEAD");
                answer.headers_mut().insert(header::ALLOW, allow);
                answer
            }
            (Route::Entry { revision, path }, _) => self.entry(revision, &path, &head).await,
            (Route::Api(api), _) => self.api(api, head.uri.query()),
            (Route::OtherRepo, _) => {
                let problem = format!("Repository not found: this server has {}", self.name);
                failed(StatusCode::NOT_FOUND, Some("RepoNotFound"), &problem)
            }
            (Route::Unknown, _) => failed(StatusCode::NOT_FOUND, None, "Not found"),
            (Route::Invalid, _) => failed(StatusCode::BAD_REQUEST, None, "The path is not valid"),
        }
    }

    /// The answer to a request without the token, where there has to be one.
    fn refused(&self, headers: &HeaderMap) -> Option<Answer> {
        let token = self.token.as_ref()?;
        let problem = match headers.get(header::AUTHORIZATION) {
            Some(given) if token.is_in(given.as_bytes()) => return None,
            Some(_) => "Invalid credentials in Authorization header",
            None => "This server wants a token (HF_TOKEN)",
        };
        let mut answer = failed(StatusCode::UNAUTHORIZED, None, problem);
        let scheme = HeaderValue::from_static("Bearer");
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
        Some(answer)
    }

    /// The answer where `revision` is not served.
    fn missing_revision(&self, revision: &str) -> Option<Answer> {
        let is_served = hub::is_served(revision, &self.files);
        (!is_served).then(|| {
            failed(
                StatusCode::NOT_FOUND,
                Some("RevisionNotFound"),
                "Invalid rev id: this server has main and the commit that it is",
            )
        })
    }

    async fn entry(&self, revision: Option<String>, path: &[u8], head: &Parts) -> Answer {
        if let Some(answer) = revision.as_ref().and_then(|r| self.missing_revision(r)) {
            return answer;
        }
        let url = head.uri.path();
        match self.files.get(path) {
            Some(Entry::File(file)) => self.file(path, file, head).await,
            None => no_entry(),
            // Links of a page are relative to it.
            Some(Entry::Directory) if revision.is_none() && path.is_empty() && url != "/" => {
                moved(&format!("/{}/resolve/{}/", self.name, hub::BRANCH))
            }
            Some(Entry::Directory) if !url.ends_with('/') => moved(&format!("{url}/")),
            Some(Entry::Directory) => {
                let page = listing::page(self.name.as_str(), &self.files, path);
                with_text(StatusCode::OK, HTML, page)
            }
        }
    }

    async fn file(&self, path: &[u8], file: &File, head: &Parts) -> Answer {
        let headers = &head.headers;
        let tags = |name| joined(headers, name);
        let (if_match, if_none_match) = (tags(header::IF_MATCH), tags(header::IF_NONE_MATCH));
        let outcome = outcome(&file.tag, if_match.as_deref(), if_none_match.as_deref());
        let range = match range_header(headers) {
            Some(range) if head.method == Method::GET => {
                let if_range = headers.get(header::IF_RANGE).map(HeaderValue::as_bytes);
                match range_fits(&file.tag, if_range) {
                    true => requested(range, file.len),
                    false => Requested::Whole,
                }
            }
            _ => Requested::Whole,
        };
        let mut answer = match (outcome, range) {
            (Outcome::Failed, _) => failed(
                StatusCode::PRECONDITION_FAILED,
                None,
                "The file is another one",
            ),
            (Outcome::NotModified, _) => with_content(StatusCode::NOT_MODIFIED, Content::none()),
            (Outcome::Send, Requested::Unsatisfiable) => {
                let problem = format!("The file has {} bytes", file.len);
                let mut answer = failed(StatusCode::RANGE_NOT_SATISFIABLE, None, &problem);
                insert(
                    &mut answer,
                    header::CONTENT_RANGE,
                    &format!("bytes */{}", file.len),
                );
                answer
            }
            (Outcome::Send, range) => self.sent(path, file, range, &head.method).await,
        };
        if answer.status() != StatusCode::INTERNAL_SERVER_ERROR {
            insert(&mut answer, header::ETAG, &file.tag.to_string());
            insert(&mut answer, header::ACCEPT_RANGES, "bytes");
        }
        answer
    }

    /// A file, or a range of it.
    async fn sent(&self, path: &[u8], file: &File, range: Requested, method: &Method) -> Answer {
        let (status, range) = match range {
            Requested::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            _ => (StatusCode::OK, 0..file.len),
        };
        let length = range.end - range.start;
        let content_range = (status == StatusCode::PARTIAL_CONTENT)
            .then(|| format!("bytes {}-{}/{}", range.start, range.end - 1, file.len));
        let content = if method == Method::HEAD {
            Content::none()
        } else {
            let name = format!("/{}", Path::new(OsStr::from_bytes(path)).shown());
            match Transfer::begin(self.source.clone(), file.id, name, range).await {
                Ok(transfer) => Content::Transfer(transfer),
                Err(error) => {
                    let problem = format!("{error}; the log of the server says why");
                    return failed(StatusCode::INTERNAL_SERVER_ERROR, None, &problem);
                }
            }
        };
        let mut answer = with_content(status, content);
        insert(&mut answer, header::CONTENT_TYPE, media_type(path));
        insert(&mut answer, header::CONTENT_LENGTH, &length.to_string());
        if let Some(range) = content_range {
            insert(&mut answer, header::CONTENT_RANGE, &range);
        }
        answer
    }

    fn api(&self, api: Api, query: Option<&str>) -> Answer {
        let revision = match &api {
            Api::Model { revision } => revision.as_ref(),
            Api::Tree { revision, .. } | Api::Commits { revision } => Some(revision),
            // Its body says which.
            Api::Paths { .. } => {
                let problem = "paths-info takes a POST";
                return failed(StatusCode::METHOD_NOT_ALLOWED, None, problem);
            }
            Api::Refs | Api::AuthCheck => None,
        };
        if let Some(answer) = revision.and_then(|revision| self.missing_revision(revision)) {
            return answer;
        }
        let files = &self.files;
        let value = match api {
            Api::Model { .. } => hub::model(&self.name, files, form::is_set(query, "blobs")),
            Api::Tree { path, .. } => return self.tree(&path, form::is_set(query, "recursive")),
            Api::Refs => hub::refs(files),
            Api::Commits { .. } => hub::commits(files),
            Api::Paths { .. } | Api::AuthCheck => Value::Object(serde_json::Map::new()),
        };
        with_text(StatusCode::OK, JSON, value.to_string())
    }

    fn tree(&self, path: &[u8], recursive: bool) -> Answer {
        let files = &self.files;
        match files.get(path) {
            None => no_entry(),
            Some(Entry::File(_)) => {
                let value = hub::paths(files, &[path.to_vec()]);
                with_text(StatusCode::OK, JSON, value.to_string())
            }
            Some(Entry::Directory) if recursive && path.is_empty() => {
                let make = || hub::tree(files, path, true).to_string().into();
                with_bytes(StatusCode::OK, JSON, self.tree.get_or_init(make).clone())
            }
            Some(Entry::Directory) => {
                let value = hub::tree(files, path, recursive);
                with_text(StatusCode::OK, JSON, value.to_string())
            }
        }
    }

    async fn paths(&self, revision: &str, headers: &HeaderMap, body: Incoming) -> Answer {
        if let Some(answer) = self.missing_revision(revision) {
            return answer;
        }
        let kind = headers.get(header::CONTENT_TYPE);
        let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let body = Limited::new(body, MAX_BODY).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return failed(StatusCode::PAYLOAD_TOO_LARGE, None, "The body is too large");
            }
            Err(_) => return failed(StatusCode::REQUEST_TIMEOUT, None, "The body did not come"),
        };
        match form::paths(&body, is_json) {
            Some(paths) => {
                let value = hub::paths(&self.files, &paths);
                with_text(StatusCode::OK, JSON, value.to_string())
            }
            None => failed(StatusCode::BAD_REQUEST, None, "The body is not valid"),
        }
    }
}

/// The value of `Range`, if there is one; several are not understood.
fn range_header(headers: &HeaderMap) -> Option<&[u8]> {
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) => Some(range.as_bytes()),
        _ => None,
    }
}

/// The values of a header that is a list.
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<Vec<u8>> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let values: Vec<&[u8]> = values.collect();
    (!values.is_empty()).then(|| values.join(&b','))
}

fn media_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    match name.rsplit(|&byte| byte == b'.').next() {
        Some(b"json") => "application/json",
        Some(b"txt" | b"md" | b"jinja" | b"py") => TEXT,
        _ => "application/octet-stream",
    }
}

fn with_content(status: StatusCode, content: Content) -> Answer {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    answer
}

fn with_bytes(status: StatusCode, kind: &'static str, bytes: Bytes) -> Answer {
    let mut answer = with_content(status, Content::Whole(Some(bytes)));
    insert(&mut answer, header::CONTENT_TYPE, kind);
    answer
}

fn with_text(status: StatusCode, kind: &'static str, text: String) -> Answer {
    with_bytes(status, kind, text.into())
}

/// An error, as clients of the Hub understand it.
fn failed(status: StatusCode, code: Option<&'static str>, problem: &str) -> Answer {
    let text = serde_json::json!({"error": problem}).to_string();
    let mut answer = with_text(status, JSON, text);
    if let Some(code) = code {
        insert(&mut answer, ERROR_CODE, code);
    }
    insert(&mut answer, ERROR_MESSAGE, problem);
    answer
}

fn no_entry() -> Answer {
    failed(
        StatusCode::NOT_FOUND,
        Some("EntryNotFound"),
        "Entry not found",
    )
}

fn moved(to: &str) -> Answer {
    let mut answer = with_content(StatusCode::TEMPORARY_REDIRECT, Content::none());
    insert(&mut answer, header::LOCATION, to);
    answer
}

/// Sets a header; a value that none can have is left out.
fn insert(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

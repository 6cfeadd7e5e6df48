//! A web server on the loopback interface that is a plain directory, a Hub and an S3 store at once, and
//! that can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// The commit that every revision of the Hub stands for.
pub(crate) const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

/// The token that opens private repositories.
pub(crate) const TOKEN: &str = "hf_test";

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// 200 and all of it, where a range was asked for.
    Whole,
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// So many bytes of the body come, then none, until the server ends or [`WebServer::end_stalls`].
    Stall(usize),
    /// This status, with a header.
    Status(u16, &'static str, &'static str),
    /// The body comes in so many pieces, with a pause after each.
    Slow(u32, Duration),
    /// One byte further along than asked for.
    OtherRange,
    /// The range that was asked for, with the status of a reply that has all.
    RangeAsWhole,
    /// A reply that says it is compressed.
    Compressed,
    /// No `ETag` and no `Last-Modified`.
    NoPin,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte and the one after the last, of `len`.
    pub(crate) fn range(&self, len: usize) -> Option<(usize, usize)> {
        let (from, to) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let to = to.parse::<usize>().map_or(len, |to| (to + 1).min(len));
        Some((from.parse().ok()?, to))
    }
}

struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    trouble: Option<Trouble>,
}

/// Content with its SHA-256, which is found once.
struct Stored {
    content: Vec<u8>,
    hash: String,
}

#[derive(Default)]
struct State {
    /// By path, without the slash at its front.
    files: Mutex<BTreeMap<String, Stored>>,
    /// What is to go wrong, each with a part of the path, and how often.
    troubles: Mutex<Vec<(String, Trouble, usize)>>,
    log: Mutex<Vec<Request>>,
    ignores_if_match: AtomicBool,
    /// Signatures of URLs up to this one have expired.
    expired: AtomicU64,
    signed: AtomicU64,
    /// How many requests for weights must have come before one of them is answered, and how many have.
    gathering: Mutex<(usize, usize)>,
    gathered: Condvar,
    ended: Mutex<bool>,
    end: Condvar,
    /// Replies that are stalled now.
    stalled: AtomicU64,
    /// How often stalled replies were ended.
    released: AtomicU64,
}

/// The server, until it is dropped.
pub(crate) struct WebServer {
    state: Arc<State>,
    address: SocketAddr,
    /// Where the Hub sends clients for large files.
    second: SocketAddr,
}

impl WebServer {
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (first, second) = (bind(), bind());
        let server = WebServer {
            state: state.clone(),
            address: first.local_addr().unwrap(),
            second: second.local_addr().unwrap(),
        };
        for listener in [first, second] {
            let (state, second) = (state.clone(), server.second);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if *state.ended.lock().unwrap() {
                        return;
                    }
                    let state = state.clone();
                    thread::spawn(move || serve(&state, stream, second));
                }
            });
        }
        server
    }

    /// The URL of the server, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has `path` be `content` from now on.
    pub(crate) fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        let content = content.into();
        let hash = Sha256::digest(&content);
        let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut files = self.state.files.lock().unwrap();
        files.insert(path.to_owned(), Stored { content, hash });
    }

    /// The files of `directory`, and of those below it, under `path`.
    pub(crate) fn put_directory(&self, path: &str, directory: &std::path::Path) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{path}/{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                self.put_directory(&path, &entry.path());
            } else {
                self.put(&path, std::fs::read(entry.path()).unwrap());
            }
        }
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.files.lock().unwrap().remove(path);
    }

    /// Has the next `times` requests for the body of a path that ends with `path` go wrong.
    pub(crate) fn trouble(&self, path: &str, trouble: Trouble, times: usize) {
        self.state
            .troubles
            .lock()
            .unwrap()
            .push((path.to_owned(), trouble, times));
    }

    pub(crate) fn ignore_if_match(&self) {
        self.state.ignores_if_match.store(true, Ordering::Relaxed);
    }

    /// Has the signed URLs that were given so far expire.
    pub(crate) fn expire(&self) {
        let signed = self.state.signed.load(Ordering::Relaxed);
        self.state.expired.store(signed, Ordering::Relaxed);
    }

    /// Whether a reply is stalled now.
    pub(crate) fn is_stalled(&self) -> bool {
        self.state.stalled.load(Ordering::SeqCst) > 0
    }

    /// Ends all replies that are stalled.
    pub(crate) fn end_stalls(&self) {
        let _ended = self.state.ended.lock().unwrap();
        self.state.released.fetch_add(1, Ordering::SeqCst);
        self.state.end.notify_all();
    }

    /// Answers no request for weights before `count` of them have come.
    pub(crate) fn gather(&self, count: usize) {
        *self.state.gathering.lock().unwrap() = (count, 0);
    }

    /// The requests so far, which are forgotten then.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        *self.state.ended.lock().unwrap() = true;
        self.state.end.notify_all();
        self.gather(0);
        self.state.gathered.notify_all();
        for address in [self.address, self.second] {
            let _ = TcpStream::connect(address);
        }
    }
}

fn serve(state: &State, stream: TcpStream, second: SocketAddr) {
    let local = stream.local_addr().unwrap();
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        state.log.lock().unwrap().push(request.clone());
        if is_large(&request.path) {
            gather(state);
        }
        let response = answer(state, &request, local == second, second);
        if !write_response(state, &mut writer, &request, response) {
            return;
        }
    }
}

/// Waits until as many requests have come as are to be gathered.
fn gather(state: &State) {
    let mut gathering = state.gathering.lock().unwrap();
    gathering.1 += 1;
    state.gathered.notify_all();
    let lacks = |(wanted, come): &mut (usize, usize)| come < wanted;
    drop(state.gathered.wait_while(gathering, lacks).unwrap());
}

pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (decoded(path.trim_start_matches('/')), query.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers
        .get("content-length")
        .and_then(|len| len.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path,
        query,
        headers,
        body,
    })
}

/// `text` without escapes.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap();
            decoded.push(u8::from_str_radix(digits, 16).unwrap());
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).unwrap()
}

fn write_response(
    state: &State,
    writer: &mut TcpStream,
    request: &Request,
    response: Response,
) -> bool {
    let Response {
        status,
        headers,
        body,
        trouble,
    } = response;
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    if !headers.iter().any(|(name, _)| name == "content-length") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    if writer.write_all(head.as_bytes()).is_err() || request.method == "HEAD" {
        return request.method == "HEAD";
    }
    match trouble {
        Some(Trouble::Cut(bytes)) => {
            let _ = writer.write_all(&body[..bytes.min(body.len())]);
            false
        }
        Some(Trouble::Stall(bytes)) => {
            let _ = writer.write_all(&body[..bytes.min(body.len())]);
            let ended = state.ended.lock().unwrap();
            let released = || state.released.load(Ordering::SeqCst);
            let before = released();
            state.stalled.fetch_add(1, Ordering::SeqCst);
            let goes_on = |ended: &mut bool| !*ended && released() == before;
            drop(state.end.wait_while(ended, goes_on).unwrap());
            state.stalled.fetch_sub(1, Ordering::SeqCst);
            false
        }
        Some(Trouble::Slow(pieces, pause)) => {
            let len = body.len().div_ceil(pieces as usize).max(1);
            body.chunks(len).all(|piece| {
                thread::sleep(pause);
                writer.write_all(piece).is_ok()
            })
        }
        _ => writer.write_all(&body).is_ok(),
    }
}

fn status(status: u16, headers: &[(&str, &str)]) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Response {
        status,
        headers: headers.collect(),
        body: Vec::new(),
        trouble: None,
    }
}

/// The entity tag of a plain file or an object.
fn tag(stored: &Stored) -> String {
    format!("\"{}\"", &stored.hash[..16])
}

/// The trouble that is due for a request.
fn due(state: &State, request: &Request) -> Option<Trouble> {
    if request.method != "GET" {
        return None;
    }
    let mut troubles = state.troubles.lock().unwrap();
    // What is asked for must be more than what comes before the trouble.
    let (from, to) = request.range(usize::MAX).unwrap_or((0, usize::MAX));
    let is_long_enough = |trouble: &Trouble| match trouble {
        Trouble::Cut(bytes) | Trouble::Stall(bytes) => to - from > *bytes,
        _ => true,
    };
    let is_due = |(path, trouble, left): &&mut (String, Trouble, usize)| {
        *left > 0 && request.path.ends_with(&**path) && is_long_enough(trouble)
    };
    let (_, trouble, left) = troubles.iter_mut().find(is_due)?;
    *left -= 1;
    Some(trouble.clone())
}

fn answer(state: &State, request: &Request, is_second: bool, second: SocketAddr) -> Response {
    let trouble = due(state, request);
    if let Some(Trouble::Status(code, name, value)) = &trouble {
        return status(*code, &[(name, value)]);
    }
    let path = &request.path;
    if is_second {
        return signed(state, request, trouble);
    }
    if let Some(rest) = path.strip_prefix("api/models/") {
        return api(state, request, rest);
    }
    if let Some((repository, rest)) = path.split_once("/resolve/") {
        return resolve(state, request, repository, rest, second, trouble);
    }
    if request.query.contains("list-type=2") {
        return list_objects(state, request);
    }
    let files = state.files.lock().unwrap();
    match files.get(path) {
        Some(stored) => file(state, request, &stored.content, Some(tag(stored)), trouble),
        None => status(404, &[]),
    }
}

/// The range of `content` that is asked for, or all of it.
fn file(
    state: &State,
    request: &Request,
    content: &[u8],
    tag: Option<String>,
    trouble: Option<Trouble>,
) -> Response {
    let mut headers = Vec::new();
    if trouble != Some(Trouble::NoPin)
        && !state
            .troubles
            .lock()
            .unwrap()
            .iter()
            .any(|(_, trouble, _)| *trouble == Trouble::NoPin)
        && let Some(tag) = &tag
    {
        if let Some(wanted) = request.header("if-match")
            && wanted != tag
            && !state.ignores_if_match.load(Ordering::Relaxed)
        {
            return status(412, &[]);
        }
        headers.push(("etag".to_owned(), tag.clone()));
        headers.push((
            "last-modified".to_owned(),
            "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        ));
    }
    let len = content.len();
    let range = request
        .range(len)
        .filter(|_| trouble != Some(Trouble::Whole));
    if trouble == Some(Trouble::Compressed) {
        headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
    }
    if request.method == "HEAD" {
        headers.push(("content-length".to_owned(), len.to_string()));
        return Response {
            status: 200,
            headers,
            body: Vec::new(),
            trouble,
        };
    }
    let Some((mut from, mut to)) = range else {
        return Response {
            status: 200,
            headers,
            body: content.to_vec(),
            trouble,
        };
    };
    if from >= len {
        return status(416, &[]);
    }
    if trouble == Some(Trouble::OtherRange) {
        (from, to) = (from + 1, (to + 1).min(len));
    }
    headers.push((
        "content-range".to_owned(),
        format!("bytes {from}-{}/{len}", to - 1),
    ));
    let status = match trouble {
        Some(Trouble::RangeAsWhole) => 200,
        _ => 206,
    };
    Response {
        status,
        headers,
        body: content[from..to].to_vec(),
        trouble,
    }
}

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

fn api(state: &State, request: &Request, rest: &str) -> Response {
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

/// The entries of a page of a list: few, so that small lists have several pages, or as many as servers send.
fn page(entries: usize) -> usize {
    if entries > 100 { 1000 } else { 3 }
}

fn is_large(path: &str) -> bool {
    [".safetensors", ".bin", ".gguf"]
        .iter()
        .any(|end| path.ends_with(end))
}

fn resolve(
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

fn signed(state: &State, request: &Request, trouble: Option<Trouble>) -> Response {
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

/// `ListObjectsV2`, by pages.
fn list_objects(state: &State, request: &Request) -> Response {
    let parameter = |name: &str| {
        let mut parts = request.query.split('&');
        let found = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        decoded(found.unwrap_or_default())
    };
    let (bucket, prefix) = (request.path.trim_end_matches('/'), parameter("prefix"));
    let start: usize = parameter("continuation-token").parse().unwrap_or(0);
    let files = state.files.lock().unwrap();
    let of_bucket = files.iter().filter_map(|(path, content)| {
        let key = path.strip_prefix(bucket)?.strip_prefix('/')?;
        key.starts_with(&prefix).then_some((key, content))
    });
    let found: Vec<(&str, &Stored)> = of_bucket.collect();
    let page = page(found.len());
    let contents = found.iter().skip(start).take(page).map(|(key, content)| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            tag(content).replace('"', "&quot;"),
            content.content.len()
        )
    });
    let contents = contents.collect::<String>();
    let next = if start + page < found.len() {
        format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
            start + page
        )
    } else {
        "<IsTruncated>false</IsTruncated>".to_owned()
    };
    let mut response = status(200, &[("content-type", "application/xml")]);
    response.body = format!("<ListBucketResult>{contents}{next}</ListBucketResult>").into_bytes();
    response
}

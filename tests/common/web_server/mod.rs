//! A web server on the loopback interface that is a plain directory, a Hub and an S3 store at once, and
//! that can be told to misbehave.

mod bucket;
mod encryption;
mod files;
mod hub;
mod request;
mod response;

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use self::bucket::list_objects;
use self::encryption::Encryption;
use self::files::{file, tag};
use self::hub::{api, is_large, resolve, signed};
pub(crate) use self::request::{Request, decoded, read_request};
use self::response::{Response, status, write_response};

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
    handshakes: AtomicU64,
}

/// The server, until it is dropped.
pub(crate) struct WebServer {
    state: Arc<State>,
    /// Whether connections are encrypted. Those of the Hub's second server never are.
    encrypted: bool,
    address: SocketAddr,
    /// Where the Hub sends clients for large files.
    second: SocketAddr,
}

impl WebServer {
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// One at `https://localhost`, which presents the certificate `name` of tests/common/certificates.
    pub(crate) fn start_encrypted(name: &str) -> Self {
        Self::start_with(Some(Encryption::with(name)))
    }

    fn start_with(encryption: Option<Encryption>) -> Self {
        let state = Arc::new(State::default());
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (first, second) = (bind(), bind());
        let server = WebServer {
            state: state.clone(),
            encrypted: encryption.is_some(),
            address: first.local_addr().unwrap(),
            second: second.local_addr().unwrap(),
        };
        for (listener, encryption) in [(first, encryption), (second, None)] {
            let (state, second) = (state.clone(), server.second);
            let is_second = listener.local_addr().unwrap() == second;
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if *state.ended.lock().unwrap() {
                        return;
                    }
                    let (state, encryption) = (state.clone(), encryption.clone());
                    thread::spawn(move || match encryption {
                        None => serve(&state, stream, is_second, second),
                        Some(encryption) => {
                            state.handshakes.fetch_add(1, Ordering::SeqCst);
                            serve(&state, encryption.of(stream), is_second, second);
                        }
                    });
                }
            });
        }
        server
    }

    /// The URL of the server, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        match self.encrypted {
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
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

    /// Encrypted connections that clients began.
    pub(crate) fn handshakes(&self) -> u64 {
        self.state.handshakes.load(Ordering::SeqCst)
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

fn serve(state: &State, stream: impl Read + Write, is_second: bool, second: SocketAddr) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        state.log.lock().unwrap().push(request.clone());
        if is_large(&request.path) {
            gather(state);
        }
        let response = answer(state, &request, is_second, second);
        if !write_response(state, stream.get_mut(), &request, response) {
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

/// The entries of a page of a list: few, so that small lists have several pages, or as many as servers send.
fn page(entries: usize) -> usize {
    if entries > 100 { 1000 } else { 3 }
}

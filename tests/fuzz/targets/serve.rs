//! Any request to a server of a small view: nothing panics, nothing outside of the view is sent,
//! lengths agree with the bytes, what is sent of a file is what the view has there, and a server with a
//! token answers nobody who lacks it.
#![no_main]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock};

use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;
use ckptfs::serve::{Options, RepoName, Serving, Token, serve};
use ckptfs_fuzz::http::{Replies, Reply};
use ckptfs_fuzz::memory::bounded;
use ckptfs_fuzz::models::MODELS;
use ckptfs_fuzz::request::{Known, Request, Sent};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

const NAME: &str = "org/model";
const TOKEN: &str = "hf_secret";

/// In a file beside the source.
const OUTSIDE: &[u8] = b"nobody is to see this";

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Request { token: bool, request: Request<'a> },
    Raw(&'a [u8]),
}

struct Served {
    /// Without a token, and with one.
    servers: [Serving; 2],
    /// Path, tag and bytes.
    files: Vec<(String, String, Vec<u8>)>,
    known: Known,
}

impl Served {
    fn address(&self, token: bool) -> SocketAddr {
        self.servers[usize::from(token)].address()
    }
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let (_, base) = MODELS.first().expect("there are models");
    let write = |name: &str, bytes: &[u8]| {
        let path = base.join(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("it can be made");
        fs::write(path, bytes).expect("a file can be written");
    };
    write("README.md", b"# A model\n");
    write("empty.txt", b"");
    write("sub/deep/notes 100%.txt", b"notes");
    // It is sent in two pieces.
    let large: Vec<u8> = (0..(1_u32 << 20) + 300).map(|i| (i % 251) as u8).collect();
    write("sub/large.bin", &large);
    write("../outside.txt", OUTSIDE);
    let plan = ViewRequest::new(base)
        .plan()
        .expect("a model can be planned");
    let reader = || Arc::new(Reader::new(plan.view.clone(), 8 << 20));
    let server = |token: Option<&str>| {
        let name = RepoName::parse(NAME).expect("it is a name");
        let options = Options {
            token: token.map(|token| Token::new(token).expect("it is a token")),
            ..Options::new(name, |name, _| name.to_owned())
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        serve(reader(), listener, options).expect("it can be served")
    };
    let servers = [server(None), server(Some(TOKEN))];
    let reader = reader();
    let files = plan.view.files().map(|(id, path, content)| {
        let mut bytes = vec![0; content.len() as usize];
        reader.read_at(id, 0, &mut bytes).expect("it can be read");
        let path = path.to_str().expect("it is text").to_owned();
        let head = format!("HEAD /{} HTTP/1.1\r\nHost: test\r\n\r\n", encoded(&path));
        let reply = Replies::to(servers[0].address(), head.as_bytes()).next(true);
        let tag = reply.and_then(|reply| reply.header("etag").map(str::to_owned));
        (path, tag.expect("a file has a tag"), bytes)
    });
    let files: Vec<_> = files.collect();
    let known = Known {
        paths: files.iter().map(|(path, ..)| encoded(path)).collect(),
        tags: files.iter().map(|(_, tag, _)| tag.clone()).collect(),
        name: NAME,
        commit: servers[0].commit().to_owned(),
        token: TOKEN,
    };
    Served {
        servers,
        files,
        known,
    }
});

fn encoded(path: &str) -> String {
    path.replace('%', "%25").replace(' ', "%20")
}

fuzz_target!(|input: Input| {
    let served = &*SERVED;
    match input {
        Input::Raw(bytes) => {
            let reply = Replies::to(served.address(true), bytes).rest();
            assert!(reply.is_empty() || reply.starts_with(b"HTTP/1."));
            assert!(!has(&reply, OUTSIDE));
        }
        Input::Request { token, request } => {
            let sent = request.to_sent(&served.known);
            bounded(sent.bytes.len(), 16 << 20, 200, || {
                ask(served, token, &sent)
            });
        }
    }
});

/// Sends `sent`, and a request after it, whose reply begins where that to the first one ends.
fn ask(served: &Served, token: bool, sent: &Sent) {
    const LAST: &[u8] = b"GET /README.md HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let bytes = [&sent.bytes, LAST].concat();
    let mut replies = Replies::to(served.address(token), &bytes);
    // A connection may end without a reply where the request was none.
    if let Some(reply) = replies.next(sent.method == "HEAD") {
        check(served, token, sent, &reply);
        assert!(!has(&reply.body, OUTSIDE));
        // What follows is a reply to the body, where that was not read as one, and to the last request.
        while let Some(next) = replies.next(false) {
            assert!(!has(&next.body, OUTSIDE));
        }
    }
}

fn check(served: &Served, token: bool, sent: &Sent, reply: &Reply) {
    // What HTTP itself refuses is refused before anybody looks for a token.
    let refused = matches!(reply.status, 400 | 401 | 408 | 414 | 431);
    if token && !refused {
        let given = sent.values("authorization");
        assert!(given.iter().any(|value| has(value, TOKEN.as_bytes())));
    }
    if !token {
        assert_ne!(reply.status, 401);
    }
    assert!(reply.status < 500, "{}: {sent:?}", reply.status);
    let Some(tag) = reply.header("etag") else {
        assert!(!matches!(reply.status, 206 | 304 | 412 | 416));
        return;
    };
    let file = served.files.iter().find(|(_, known, _)| known == tag);
    let (path, _, content) = file.expect("what is sent is a file of the view");
    let asked = sent.path.trim_end_matches('/');
    assert!(decoded(asked).ends_with(path.as_bytes()), "{asked}: {path}");
    let is_named = |header: &str| {
        let values = sent.values(header);
        let is_named = |value: &&[u8]| has(value, tag.as_bytes()) || value.trim_ascii() == b"*";
        values.is_empty() || values.iter().any(is_named)
    };
    let length = reply.header("content-length");
    let length = length.map(|length| length.parse::<usize>().expect("a length is a number"));
    let whole = match reply.status {
        200 => Some(0..content.len()),
        206 => Some(range(reply, content.len())),
        304 => {
            assert!(!sent.values("if-none-match").is_empty() && is_named("if-none-match"));
            None
        }
        412 => {
            assert!(!sent.values("if-match").is_empty());
            None
        }
        416 => {
            let all = format!("bytes */{}", content.len());
            assert_eq!(reply.header("content-range"), Some(&*all));
            None
        }
        status => panic!("{status} for a file"),
    };
    let Some(range) = whole else {
        return;
    };
    assert!(is_named("if-match"), "{sent:?}");
    assert_eq!(length, Some(range.len()));
    if reply.status == 206 {
        assert_eq!(sent.method, "GET");
        assert!(!sent.values("range").is_empty() && is_named("if-range"));
    }
    if sent.method == "GET" {
        assert!(reply.body == content[range]);
    }
}

/// The bytes that a part is of.
fn range(reply: &Reply, len: usize) -> std::ops::Range<usize> {
    let text = reply.header("content-range").expect("a part says which");
    let parse = || {
        let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let numbers = [first, last, whole].map(str::parse::<usize>);
        let [Ok(first), Ok(last), Ok(whole)] = numbers else {
            return None;
        };
        (first <= last && last < whole && whole == len).then_some(first..last + 1)
    };
    parse().unwrap_or_else(|| panic!("{text} of {len} bytes"))
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// `text` without encodings.
fn decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let encoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match encoded.filter(|_| byte == b'%') {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

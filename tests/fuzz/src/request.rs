//! Requests of HTTP that no honest client sends, made of parts that a server knows and of any bytes.

use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// A request in parts.
#[derive(Debug, Arbitrary)]
pub struct Request<'a> {
    method: u8,
    target: Vec<Part<'a>>,
    headers: Vec<Header<'a>>,
    body: &'a [u8],
}

/// What parts stand for.
#[derive(Debug)]
pub struct Known {
    /// Paths of files, with what must be encoded as it is in URLs.
    pub paths: Vec<String>,
    /// Their tags, with quotes.
    pub tags: Vec<String>,
    pub name: &'static str,
    pub commit: String,
    pub token: &'static str,
}

#[derive(Debug, Arbitrary)]
enum Part<'a> {
    Path(u8),
    Word(u8),
    /// A byte, percent-encoded.
    Encoded(u8),
    Bytes(&'a [u8]),
}

const METHODS: [&str; 6] = ["GET", "GET", "HEAD", "POST", "PUT", "OPTIONS"];

const WORDS: [&str; 16] = [
    "/",
    "..",
    "/../",
    "%2e%2e/",
    ".",
    "%00",
    "?",
    "recursive=true&",
    "blobs=1&",
    "/resolve/",
    "/raw/",
    "main",
    "/tree/",
    "/revision/",
    "/paths-info/",
    "/etc/passwd",
];

#[derive(Debug, Arbitrary)]
enum Header<'a> {
    Range(Position, Position),
    RangeFrom(Position),
    Suffix(Position),
    RangeText(&'a [u8]),
    IfMatch(Tags<'a>),
    IfNoneMatch(Tags<'a>),
    IfRange(Tags<'a>),
    Token,
    Authorization(&'a [u8]),
    /// Of the body, with this added to it.
    ContentLength(i8),
    ContentLengthText(&'a [u8]),
    Chunked,
    Json,
    Close,
    Other(&'a [u8], &'a [u8]),
}

/// A number in or near a file.
#[derive(Debug, Arbitrary)]
enum Position {
    Small(u8),
    /// Near the border of two pieces that are read.
    Piece(i8),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
enum Tags<'a> {
    Known(u8),
    Weak(u8),
    Two(u8, u8),
    Any,
    Text(&'a [u8]),
}

impl Position {
    fn number(&self) -> u64 {
        match self {
            Position::Small(number) => (*number).into(),
            Position::Piece(offset) => (1_u64 << 20).saturating_add_signed((*offset).into()),
            Position::Any(number) => *number,
        }
    }
}

impl Tags<'_> {
    fn text(&self, known: &Known) -> Vec<u8> {
        let tag = |i: &u8| known.tags[usize::from(*i) % known.tags.len()].as_str();
        match self {
            Tags::Known(i) => tag(i).into(),
            Tags::Weak(i) => format!("W/{}", tag(i)).into(),
            Tags::Two(i, k) => format!("\"x\", {} ,{}", tag(i), tag(k)).into(),
            Tags::Any => b"*".into(),
            Tags::Text(text) => text.to_vec(),
        }
    }
}

impl Header<'_> {
    fn line(&self, known: &Known, body: usize) -> (Vec<u8>, Vec<u8>) {
        let (name, value) = match self {
            Header::Range(from, to) => {
                let range = format!("bytes={}-{}", from.number(), to.number());
                ("Range", range.into())
            }
            Header::RangeFrom(from) => ("Range", format!("bytes={}-", from.number()).into()),
            Header::Suffix(len) => ("Range", format!("bytes=-{}", len.number()).into()),
            Header::RangeText(text) => ("Range", text.to_vec()),
            Header::IfMatch(tags) => ("If-Match", tags.text(known)),
            Header::IfNoneMatch(tags) => ("If-None-Match", tags.text(known)),
            Header::IfRange(tags) => ("If-Range", tags.text(known)),
            Header::Token => ("Authorization", format!("Bearer {}", known.token).into()),
            Header::Authorization(text) => ("Authorization", text.to_vec()),
            Header::ContentLength(more) => {
                let length = body.saturating_add_signed((*more).into());
                ("Content-Length", length.to_string().into())
            }
            Header::ContentLengthText(text) => ("Content-Length", text.to_vec()),
            Header::Chunked => ("Transfer-Encoding", b"chunked".into()),
            Header::Json => ("Content-Type", b"application/json".into()),
            Header::Close => ("Connection", b"close".into()),
            Header::Other(name, value) => return (name.to_vec(), value.to_vec()),
        };
        (name.into(), value)
    }
}

/// A request as it is sent.
#[derive(Debug)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub method: &'static str,
    /// The path of the target, without a query.
    pub path: String,
    /// Names in lower case, and values.
    headers: Vec<(String, Vec<u8>)>,
}

impl Sent {
    /// The values of a header.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let found = self.headers.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice()).collect()
    }
}

impl Request<'_> {
    /// As it is sent. There is one request in it, whatever its parts are.
    pub fn to_sent(&self, known: &Known) -> Sent {
        let method = METHODS[usize::from(self.method) % METHODS.len()];
        let mut target: Vec<u8> = Vec::new();
        for part in &self.target {
            match part {
                Part::Path(i) => {
                    let path = &known.paths[usize::from(*i) % known.paths.len()];
                    target.extend(path.as_bytes());
                }
                Part::Word(i) => match usize::from(*i) {
                    i if i < WORDS.len() => target.extend(WORDS[i].as_bytes()),
                    i if i % 3 == 0 => target.extend(format!("/{}", known.name).as_bytes()),
                    i if i % 3 == 1 => target.extend(known.commit.as_bytes()),
                    _ => target.extend(format!("/api/models/{}", known.name).as_bytes()),
                },
                Part::Encoded(byte) => target.extend(format!("%{byte:02x}").as_bytes()),
                Part::Bytes(bytes) => target.extend(*bytes),
            }
        }
        // What would end it.
        target.retain(|byte| !byte.is_ascii_whitespace());
        if !target.starts_with(b"/") {
            target.insert(0, b'/');
        }
        let mut bytes = format!("{method} ").into_bytes();
        bytes.extend(&target);
        bytes.extend(b" HTTP/1.1\r\nHost: test\r\n");
        let mut headers = Vec::new();
        for header in &self.headers {
            let (mut name, mut value) = header.line(known, self.body.len());
            name.retain(|byte| !b"\r\n".contains(byte));
            value.retain(|byte| !b"\r\n".contains(byte));
            // Without a name it would be the end of the head, or of the header before it.
            if name.trim_ascii().len() < name.len() || name.is_empty() {
                continue;
            }
            bytes.extend([&name[..], b": ", &value, b"\r\n"].concat());
            let name = String::from_utf8_lossy(&name).to_ascii_lowercase();
            headers.push((name, value));
        }
        bytes.extend(b"\r\n");
        bytes.extend(self.body);
        let path = target.split(|byte| b"?#".contains(byte)).next();
        let path = String::from_utf8_lossy(path.unwrap_or_default()).into_owned();
        Sent {
            bytes,
            method,
            path,
            headers,
        }
    }
}

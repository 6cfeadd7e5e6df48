//! A store with the API of S3 on the loopback interface that takes writes, and can be told to misbehave.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

use super::web_server::{Request, decoded, read_request};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing is done, and the reply has this status.
    Status(u16),
    /// Nothing is done, and the connection ends.
    Cut,
    /// It is done, and the connection ends without a reply.
    LoseReply,
    /// Nothing is done, and no reply comes until the server ends.
    Stall,
}

/// A trouble that is to come.
struct Planned {
    /// What the method and target of the request hold, such as `PUT /bucket/a` and `partNumber=2`.
    holds: Vec<String>,
    trouble: Trouble,
    times: usize,
}

/// An upload that is not complete.
struct Upload {
    key: String,
    parts: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default)]
struct State {
    /// By bucket and key.
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    uploads: Mutex<(u32, BTreeMap<String, Upload>)>,
    troubles: Mutex<Vec<Planned>>,
    /// Method and target of each request.
    log: Mutex<Vec<String>>,
    ended: Mutex<bool>,
    end: Condvar,
    /// Replies that are stalled now.
    stalled: Mutex<usize>,
    stall: Condvar,
}

/// The server, until it is dropped.
pub(crate) struct S3Server {
    state: Arc<State>,
    address: SocketAddr,
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl S3Server {
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *shared.ended.lock().unwrap() {
                    return;
                }
                let state = shared.clone();
                thread::spawn(move || serve(&state, stream));
            }
        });
        S3Server { state, address }
    }

    /// The URL of the server, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has the object at `path`, a bucket and a key, be `content`.
    pub(crate) fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        let mut objects = self.state.objects.lock().unwrap();
        objects.insert(path.to_owned(), content.into());
    }

    /// The objects below `prefix`, which ends with a slash, by the rest of their names.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let objects = self.state.objects.lock().unwrap();
        let below = objects.iter().filter_map(|(path, content)| {
            Some((path.strip_prefix(prefix)?.to_owned(), content.clone()))
        });
        below.collect()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.objects.lock().unwrap().remove(path);
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub(crate) fn open_uploads(&self) -> usize {
        self.state.uploads.lock().unwrap().1.len()
    }

    /// Has the next `times` requests whose method and target hold all of `holds` go wrong.
    pub(crate) fn trouble(&self, holds: &[&str], trouble: Trouble, times: usize) {
        let holds = holds.iter().map(|&text| text.to_owned()).collect();
        let planned = Planned {
            holds,
            trouble,
            times,
        };
        self.state.troubles.lock().unwrap().push(planned);
    }

    /// Waits until so many replies are stalled.
    pub(crate) fn wait_for_stalls(&self, count: usize) {
        let stalled = self.state.stalled.lock().unwrap();
        let lacks = |stalled: &mut usize| *stalled < count;
        drop(self.state.stall.wait_while(stalled, lacks).unwrap());
    }

    /// Method and target of the requests so far, which are forgotten then.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        *self.state.ended.lock().unwrap() = true;
        self.state.end.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(state: &State, stream: TcpStream) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let target = format!("{} /{}?{}", request.method, request.path, request.query);
        state.log.lock().unwrap().push(target.clone());
        let trouble = due(state, &target);
        let reply = match trouble {
            Some(Trouble::Cut) => return,
            Some(Trouble::Stall) => return wait_for_end(state),
            Some(Trouble::Status(status)) => reply(status),
            Some(Trouble::LoseReply) | None => answer(state, &request),
        };
        if trouble == Some(Trouble::LoseReply) || !write(&mut writer, &request, reply) {
            return;
        }
    }
}

fn due(state: &State, target: &str) -> Option<Trouble> {
    let mut troubles = state.troubles.lock().unwrap();
    let is_due = |planned: &&mut Planned| {
        planned.times > 0 && planned.holds.iter().all(|text| target.contains(text))
    };
    let planned = troubles.iter_mut().find(is_due)?;
    planned.times -= 1;
    Some(planned.trouble)
}

fn wait_for_end(state: &State) {
    *state.stalled.lock().unwrap() += 1;
    state.stall.notify_all();
    let ended = state.ended.lock().unwrap();
    drop(state.end.wait_while(ended, |ended| !*ended).unwrap());
}

fn write(writer: &mut TcpStream, request: &Request, reply: Reply) -> bool {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    if !reply
        .headers
        .iter()
        .any(|(name, _)| *name == "content-length")
    {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let body = match request.method == "HEAD" {
        true => &[],
        false => &reply.body[..],
    };
    writer.write_all(head.as_bytes()).is_ok() && writer.write_all(body).is_ok()
}

fn reply(status: u16) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn xml(body: String) -> Reply {
    Reply {
        status: 200,
        headers: vec![("content-type", "application/xml".to_owned())],
        body: body.into_bytes(),
    }
}

fn tag(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hash = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
    format!("\"{}\"", hash.collect::<String>())
}

fn with_tag(content: &[u8]) -> Reply {
    let mut reply = reply(200);
    reply.headers.push(("etag", tag(content)));
    reply
}

fn parameter(request: &Request, name: &str) -> Option<String> {
    let mut parts = request.query.split('&');
    parts.find_map(|part| {
        let rest = part.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(decoded(value)),
            None => rest.is_empty().then(String::new),
        }
    })
}

fn answer(state: &State, request: &Request) -> Reply {
    let path = request.path.trim_end_matches('/');
    let upload = parameter(request, "uploadId");
    match (&*request.method, upload) {
        ("GET", _) if parameter(request, "list-type").is_some() => list(state, request, path),
        ("POST", None) if parameter(request, "uploads").is_some() => begin(state, path),
        ("PUT", Some(id)) => put_part(state, request, &id),
        ("POST", Some(id)) => complete(state, request, path, &id),
        ("DELETE", Some(id)) => match state.uploads.lock().unwrap().1.remove(&id) {
            Some(_) => reply(204),
            None => reply(404),
        },
        ("DELETE", None) => {
            state.objects.lock().unwrap().remove(path);
            reply(204)
        }
        ("PUT", None) => {
            let mut objects = state.objects.lock().unwrap();
            if request.headers.contains_key("if-none-match") && objects.contains_key(path) {
                return reply(412);
            }
            objects.insert(path.to_owned(), request.body.clone());
            with_tag(&request.body)
        }
        ("GET" | "HEAD", _) => match state.objects.lock().unwrap().get(path) {
            Some(content) => object(request, content),
            None => reply(404),
        },
        _ => reply(501),
    }
}

fn object(request: &Request, content: &[u8]) -> Reply {
    let mut reply = with_tag(content);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    reply.headers.push(("last-modified", date));
    let len = content.len();
    match request.range(len) {
        Some((from, to)) => {
            reply.status = 206;
            let range = format!("bytes {from}-{}/{len}", to - 1);
            reply.headers.push(("content-range", range));
            reply.body = content[from..to].to_vec();
        }
        None if request.method == "HEAD" => {
            reply.headers.push(("content-length", len.to_string()));
        }
        None => reply.body = content.to_vec(),
    }
    reply
}

/// `ListObjectsV2`, by small pages.
fn list(state: &State, request: &Request, bucket: &str) -> Reply {
    const PAGE: usize = 4;
    let prefix = parameter(request, "prefix").unwrap_or_default();
    let start = parameter(request, "continuation-token");
    let start: usize = start.map_or(0, |token| token.parse().unwrap());
    let objects = state.objects.lock().unwrap();
    let found = objects.iter().filter_map(|(path, content)| {
        let key = path.strip_prefix(bucket)?.strip_prefix('/')?;
        key.starts_with(&prefix).then_some((key, content))
    });
    let found: Vec<(&str, &Vec<u8>)> = found.collect();
    let page = found.iter().skip(start).take(PAGE).map(|(key, content)| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            tag(content).replace('"', "&quot;"),
            content.len()
        )
    });
    let page: String = page.collect();
    let next = match start + PAGE < found.len() {
        true => format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
            start + PAGE
        ),
        false => "<IsTruncated>false</IsTruncated>".to_owned(),
    };
    xml(format!("<ListBucketResult>{page}{next}</ListBucketResult>"))
}

fn begin(state: &State, path: &str) -> Reply {
    let mut uploads = state.uploads.lock().unwrap();
    uploads.0 += 1;
    let id = format!("upload-{}", uploads.0);
    let upload = Upload {
        key: path.to_owned(),
        parts: BTreeMap::new(),
    };
    uploads.1.insert(id.clone(), upload);
    xml(format!(
        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
    ))
}

fn put_part(state: &State, request: &Request, id: &str) -> Reply {
    let mut uploads = state.uploads.lock().unwrap();
    let Some(upload) = uploads.1.get_mut(id) else {
        return reply(404);
    };
    let number = parameter(request, "partNumber").unwrap().parse().unwrap();
    upload.parts.insert(number, request.body.clone());
    with_tag(&request.body)
}

fn complete(state: &State, request: &Request, path: &str, id: &str) -> Reply {
    const MIN_PART: usize = 5 << 20;
    let mut uploads = state.uploads.lock().unwrap();
    let Some(upload) = uploads.1.remove(id) else {
        return reply(404);
    };
    assert_eq!(upload.key, path);
    let wanted = String::from_utf8(request.body.clone()).unwrap();
    let numbers = wanted.split("<PartNumber>").skip(1);
    let numbers: Vec<u32> = numbers
        .map(|text| text.split('<').next().unwrap().parse().unwrap())
        .collect();
    let parts: Vec<&Vec<u8>> = numbers.iter().map(|number| &upload.parts[number]).collect();
    let (_, others) = parts.split_last().unwrap();
    assert!(numbers.is_sorted() && others.iter().all(|part| part.len() >= MIN_PART));
    for part in &parts {
        assert!(wanted.contains(tag(part).trim_matches('"')), "{wanted}");
    }
    let content: Vec<u8> = parts.into_iter().flatten().copied().collect();
    let tag = tag(&content).replace('"', "&quot;");
    state
        .objects
        .lock()
        .unwrap()
        .insert(path.to_owned(), content);
    xml(format!(
        "<CompleteMultipartUploadResult><Location>x</Location><Bucket>x</Bucket><Key>x</Key><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
    ))
}

//! An object store on the loopback interface that takes writes, and can be told to misbehave. It is S3, Google
//! Cloud Storage or Azure.

mod kind;
mod objects;

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

pub(crate) use self::kind::Kind;
use super::web_server::{Request, read_request};

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
    /// What the method and target of the request hold, such as `PUT /bucket/a` and `partNumber=2`, in
    /// the words of S3.
    holds: Vec<String>,
    trouble: Trouble,
    times: usize,
}

/// An upload that is not complete.
struct Upload {
    key: String,
    /// By number, or what Azure has instead.
    parts: BTreeMap<String, Vec<u8>>,
}

struct State {
    kind: Kind,
    /// By bucket and key.
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    uploads: Mutex<(u32, BTreeMap<String, Upload>)>,
    troubles: Mutex<Vec<Planned>>,
    /// Method and target of each request, in the words of S3.
    log: Mutex<Vec<String>>,
    ended: Mutex<bool>,
    end: Condvar,
    /// Replies that are stalled now.
    stalled: Mutex<usize>,
    stall: Condvar,
}

/// The server, until it is dropped.
pub(crate) struct StoreServer {
    state: Arc<State>,
    address: SocketAddr,
}

impl Upload {
    /// One without parts.
    fn of(path: &str) -> Self {
        Upload {
            key: path.to_owned(),
            parts: BTreeMap::new(),
        }
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl StoreServer {
    pub(crate) fn start(kind: Kind) -> Self {
        let state = Arc::new(State {
            kind,
            objects: Mutex::default(),
            uploads: Mutex::default(),
            troubles: Mutex::default(),
            log: Mutex::default(),
            ended: Mutex::default(),
            end: Condvar::new(),
            stalled: Mutex::default(),
            stall: Condvar::new(),
        });
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
        StoreServer { state, address }
    }

    /// The settings with which clients reach this server.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        self.state.kind.settings(&self.url())
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

impl Drop for StoreServer {
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
        state.kind.check_signed(&request);
        let request = state.kind.translated(state, request);
        let target = format!("{} /{}?{}", request.method, request.path, request.query);
        state.log.lock().unwrap().push(target.clone());
        let trouble = due(state, &target);
        let reply = match trouble {
            Some(Trouble::Cut) => return,
            Some(Trouble::Stall) => return wait_for_end(state),
            Some(Trouble::Status(status)) => state.kind.reply(&request, reply(status)),
            Some(Trouble::LoseReply) | None => {
                state.kind.reply(&request, objects::answer(state, &request))
            }
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

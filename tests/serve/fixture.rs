//! A view that is served.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ckptfs::ops::QuantizeParams;
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::serve::{Options, RepoName, Serving, serve};

use crate::client::{Client, Response};
use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, bf16};

pub(crate) const NAME: &str = "org/model";
pub(crate) const LARGE: &str = "large.bin";
pub(crate) const LARGE_BYTES: usize = 256 << 20;

/// A checkpoint whose view is partly computed, with files in a directory and of awkward names.
pub(crate) fn checkpoint() -> Checkpoint {
    let name = |layer, module| format!("model.layers.{layer}.mlp.{module}.weight");
    let tensors = (0..3).flat_map(|layer| {
        [
            bf16(&name(layer, "up_proj"), &[1024, 768]),
            bf16(&name(layer, "norm"), &[768]),
        ]
    });
    Checkpoint::single(tensors)
        .aux("README.md", "# A model\n")
        .aux("empty.txt", "")
        .aux("extra/deep/notes 100% #1.txt", "some notes\n")
        .aux("extra/ünïcode.json", "{}")
}

/// A view that is served, and where it comes from.
pub(crate) struct Served {
    workspace: Workspace,
    pub(crate) base: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) serving: Serving,
}

pub(crate) fn options() -> Options {
    Options {
        // No test waits for these.
        head_timeout: Duration::from_secs(600),
        stall_timeout: Duration::from_secs(600),
        grace: Duration::from_secs(600),
        ..Options::new(RepoName::parse(NAME).unwrap(), |name, _| name.to_owned())
    }
}

pub(crate) fn plan(base: &Path) -> Plan {
    let fp8 = QuantizeParams::by_rules();
    let request = ViewRequest::new(base).with(|asked| asked.quantize = fp8);
    request.plan().unwrap()
}

pub(crate) fn serving(plan: &Plan, options: Options) -> Serving {
    let reader = Arc::new(Reader::new(plan.view.clone(), 8 << 20));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    serve(reader, listener, options).unwrap()
}

impl Served {
    pub(crate) fn new() -> Self {
        Served::with(options())
    }

    pub(crate) fn with(options: Options) -> Self {
        Served::of(options, |_| {})
    }

    /// With a file of zeros that is larger than what the kernel keeps for both sides of a connection.
    pub(crate) fn with_large(options: Options) -> Self {
        Served::of(options, |base| {
            let file = File::create(base.join(LARGE)).unwrap();
            file.set_len(LARGE_BYTES as u64).unwrap();
        })
    }

    fn of(options: Options, add: impl FnOnce(&Path)) -> Self {
        let workspace = Workspace::new();
        let base = workspace.write("base", &checkpoint());
        add(&base);
        let plan = plan(&base);
        let serving = serving(&plan, options);
        Served {
            workspace,
            base,
            plan,
            serving,
        }
    }

    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// The response to one request on a connection of its own.
    pub(crate) fn get(&self, request: &str, headers: &[&str]) -> Response {
        self.connect().get(request, headers)
    }

    /// A connection on which a transfer of the large file has begun.
    pub(crate) fn begin_large(&self) -> Client {
        let mut client = self.connect();
        client.ask(&format!("GET {}", resolve("main", LARGE)), &[]);
        assert_eq!(client.head().unwrap().length(), LARGE_BYTES);
        client
    }

    /// Every file by its path, with the bytes that a reader of its own gives.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let reader = Reader::new(self.plan.view.clone(), 8 << 20);
        let files = self.plan.view.files().map(|(id, path, content)| {
            let mut bytes = vec![0; content.len() as usize];
            assert_eq!(reader.read_at(id, 0, &mut bytes).unwrap(), bytes.len());
            (path.to_str().unwrap().to_owned(), bytes)
        });
        files.collect()
    }

    /// The path and bytes of the shard.
    pub(crate) fn shard(&self) -> (String, Vec<u8>) {
        let mut files = self.files().into_iter();
        files
            .find(|(path, _)| path.ends_with(".safetensors"))
            .unwrap()
    }
}

/// The URL of a file.
pub(crate) fn resolve(revision: &str, path: &str) -> String {
    format!("/{NAME}/resolve/{revision}/{}", encoded(path))
}

/// `path` with all but slashes and plain letters percent-encoded.
pub(crate) fn encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b'/' | b'.' | b'-' | b'_' => (byte as char).to_string(),
        byte if byte.is_ascii_alphanumeric() => (byte as char).to_string(),
        byte => format!("%{byte:02x}"),
    };
    path.bytes().map(encode).collect()
}

//! The checkpoint of 1 TB, of zeros that nobody stored, and the server that has it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

/// Shapes as Llama 3.1 405B has them, and as many layers as make 1 TB.
const LAYERS: usize = 156;
const HIDDEN: u64 = 16_384;
const INNER: u64 = 53_248;
const KEYS: u64 = 1_024;
const TOKENS: u64 = 128_256;

/// A tensor: name and shape.
type Named = (String, Vec<u64>);

fn shards() -> Vec<Vec<Named>> {
    let mut shards = vec![vec![
        ("model.embed_tokens.weight".to_owned(), vec![TOKENS, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ]];
    for layer in 0..LAYERS {
        let of = |module: &str, rows, columns| {
            let name = format!("model.layers.{layer}.{module}.weight");
            (name, vec![rows, columns])
        };
        shards.push(vec![
            of("mlp.gate_proj", INNER, HIDDEN),
            of("self_attn.k_proj", KEYS, HIDDEN),
            of("self_attn.o_proj", HIDDEN, HIDDEN),
            of("self_attn.q_proj", HIDDEN, HIDDEN),
            of("self_attn.v_proj", KEYS, HIDDEN),
        ]);
        shards.push(vec![
            of("mlp.down_proj", HIDDEN, INNER),
            of("mlp.up_proj", INNER, HIDDEN),
        ]);
    }
    shards.push(vec![("lm_head.weight".to_owned(), vec![TOKENS, HIDDEN])]);
    shards
}

/// A file: its first bytes, and how long it is with the zeros that follow.
pub(crate) struct File {
    head: Vec<u8>,
    pub(crate) len: u64,
}

/// The checkpoint.
fn files() -> BTreeMap<String, File> {
    let shards = shards();
    let whole = |text: String| File {
        len: text.len() as u64,
        head: text.into_bytes(),
    };
    let mut files = BTreeMap::new();
    let mut map = serde_json::Map::new();
    let count = shards.len();
    for (number, tensors) in shards.into_iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        let mut header = serde_json::Map::new();
        let mut at = 0;
        for (tensor, shape) in tensors {
            let end = at + 2 * shape.iter().product::<u64>();
            let entry =
                serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, end]});
            header.insert(tensor.clone(), entry);
            map.insert(tensor, name.clone().into());
            at = end;
        }
        let mut text = serde_json::Value::from(header).to_string();
        text.extend(std::iter::repeat_n(
            ' ',
            text.len().next_multiple_of(8) - text.len(),
        ));
        let head = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let len = head.len() as u64 + at;
        files.insert(name, File { head, len });
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    files.insert(
        "model.safetensors.index.json".to_owned(),
        whole(index.to_string()),
    );
    let config = format!(
        r#"{{"model_type": "llama", "num_hidden_layers": {LAYERS}, "torch_dtype": "bfloat16"}}"#
    );
    files.insert("config.json".to_owned(), whole(config));
    files
}

/// A server of files, and what it sent.
pub(crate) struct Server {
    pub(crate) files: BTreeMap<String, File>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Server {
    /// Starts one; returns the URL of its directory, too.
    pub(crate) fn start() -> (Arc<Self>, String) {
        let server = Arc::new(Server {
            files: files(),
            requests: AtomicU64::default(),
            bytes: AtomicU64::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let url = format!("http://{}/m", listener.local_addr().expect("it is bound"));
        let shared = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        (server, url)
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let (method, rest) = line.split_once(' ')?;
            let name = rest
                .split(' ')
                .next()?
                .strip_prefix("/m/")
                .map(str::to_owned);
            let is_head = method == "HEAD";
            let mut range = None;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                match line.trim_end().split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                        let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                        range = Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()? + 1));
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            self.requests.fetch_add(1, Relaxed);
            let Some(file) = name.and_then(|name| self.files.get(&name)) else {
                writer
                    .write_all(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n")
                    .ok()?;
                continue;
            };
            let (status, more, (from, to)) = match range {
                Some((from, to)) => {
                    let range = format!("content-range: bytes {from}-{}/{}\r\n", to - 1, file.len);
                    (206, range, (from, to))
                }
                None => (200, String::new(), (0, file.len)),
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\netag: \"1\"\r\n{more}content-length: {}\r\n\r\n",
                to - from
            );
            writer.write_all(head.as_bytes()).ok()?;
            if !is_head {
                self.bytes.fetch_add(to - from, Relaxed);
                send(&mut writer, file, from, to)?;
            }
        }
    }

    /// Requests and bytes since this was last asked.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.requests.swap(0, Relaxed), self.bytes.swap(0, Relaxed))
    }
}

fn send(writer: &mut TcpStream, file: &File, from: u64, to: u64) -> Option<()> {
    static ZEROS: [u8; 1 << 18] = [0; 1 << 18];
    let head = file.head.len() as u64;
    let made = &file.head[from.min(head) as usize..to.min(head) as usize];
    writer.write_all(made).ok()?;
    let mut left = to - from - made.len() as u64;
    while left > 0 {
        let count = left.min(ZEROS.len() as u64);
        writer.write_all(&ZEROS[..count as usize]).ok()?;
        left -= count;
    }
    Some(())
}

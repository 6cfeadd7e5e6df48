//! Sources at URLs: the same views as over files, whatever the server does.

mod cache;
#[cfg(feature = "cli")]
mod certificates;
mod faults;
#[cfg(feature = "cli")]
mod flags;
mod hub;
mod pins;
mod speed;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ckptfs::ops::LoraRequest;
use ckptfs::recipe::{Plan, ViewRequest};
use ckptfs::source::Location;
use ckptfs::source::remote::{HubOptions, Network, NetworkOptions};

use crate::common::Workspace;
use crate::common::adapter::Adapter;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_all;
use crate::common::store_server::Kind;
use crate::common::web_server::WebServer;

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// Two shards, the second of several blocks, and files beside them.
fn base() -> Checkpoint {
    let config = r#"{"num_hidden_layers": 1, "torch_dtype": "bfloat16"}"#;
    Checkpoint::new()
        .shard(FIRST, [bf16("model.embed_tokens.weight", &[32, 256])])
        .shard(
            SECOND,
            [
                bf16("model.norm.weight", &[256]),
                bf16("model.layers.0.mlp.up_proj.weight", &[2048, 1024]),
            ],
        )
        .config(config)
        .aux("tokenizer.json", "{}")
}

/// A network that gives up soon.
fn options(server: &WebServer) -> NetworkOptions {
    let stores = [Kind::S3, Kind::Google].map(|kind| kind.settings(&server.url()));
    NetworkOptions {
        give_up: Duration::from_secs(2),
        stall: Duration::from_millis(300),
        hub: HubOptions {
            endpoint: server.url(),
            ..HubOptions::default()
        },
        stores: stores
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        ..NetworkOptions::default()
    }
}

fn network(server: &WebServer) -> Arc<Network> {
    Network::new(options(server)).unwrap()
}

fn at(network: &Arc<Network>, url: &str) -> ckptfs::Result<Location> {
    network.open(url).map(Location::Open)
}

fn plan(network: &Arc<Network>, url: &str) -> ckptfs::Result<Plan> {
    ViewRequest::new(at(network, url)?).plan()
}

/// A server that has `directory` in all ways, and the URLs of them.
fn served(directory: &Path, name: &str) -> (WebServer, [String; 4]) {
    let server = WebServer::start();
    let urls = put(&server, directory, name);
    (server, urls)
}

fn put(server: &WebServer, directory: &Path, name: &str) -> [String; 4] {
    server.put_directory(&format!("plain/{name}"), directory);
    server.put_directory(&format!("bucket/models/{name}"), directory);
    server.put_directory(&format!("hub/org/{name}"), directory);
    [
        format!("{}/plain/{name}", server.url()),
        format!("s3://bucket/models/{name}"),
        format!("hf://org/{name}"),
        format!("gs://bucket/models/{name}"),
    ]
}

#[test]
fn a_checkpoint_at_a_url_gives_the_view_that_it_gives_on_disk() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    std::fs::create_dir(directory.join("sub")).unwrap();
    std::fs::write(directory.join("sub/notes.md"), "below").unwrap();
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    let (server, urls) = served(&directory, "base");
    for url in urls {
        let plan = plan(&network(&server), &url).unwrap();
        let mut found = read_all(&plan);
        assert!(
            plan.shards.iter().all(|shard| shard.whole_file.is_some()),
            "{url}"
        );
        if url.starts_with("http") {
            // Nothing lists what is below.
            let below = PathBuf::from("sub/notes.md");
            found.insert(below.clone(), expected[&below].clone());
        }
        assert!(found == expected, "{url}");
    }
}

#[test]
fn a_directory_below_is_a_directory_too() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    std::fs::create_dir_all(directory.join("sub/more")).unwrap();
    std::fs::write(directory.join("sub/more/notes.md"), "below").unwrap();
    let (server, urls) = served(&directory, "base");
    for url in &urls[1..] {
        let opened = network(&server).open(url).unwrap();
        let below = opened.below("sub").unwrap().unwrap();
        assert_eq!(below.names().unwrap(), ["more"]);
        assert!(below.has("more/notes.md") && !below.has("notes.md"));
        let last = below.below("more").unwrap().unwrap();
        let notes = last.file("notes.md").unwrap().read_all(100).unwrap();
        assert_eq!(notes, b"below");
        assert_eq!(
            last.location(),
            std::path::Path::new(&format!("{url}/sub/more"))
        );
        assert!(opened.below("none").unwrap().is_none());
    }
}

#[test]
fn adapters_and_extras_at_urls_make_the_view_that_they_make_on_disk() {
    let workspace = Workspace::new();
    let adapter = Adapter::new(4, 8.0).linear("model.layers.0.mlp.up_proj", [2048, 1024], 4);
    let more = [
        bf16("model.norm.weight", &[256]),
        bf16("mtp.w", &[256, 128]),
    ];
    let places = [
        workspace.write("base", &base()),
        adapter.write(&workspace, "adapter"),
        workspace.write("extra", &Checkpoint::single(more)),
    ];
    let view = |[base, adapter, extra]: [Location; 3]| {
        let mut request = ViewRequest::new(base);
        request.operations.patch.extras.push(extra);
        request
            .operations
            .quantize
            .patterns
            .push("mtp.w".to_owned());
        request.operations.lora.adapters.push(LoraRequest {
            adapter,
            weight: 0.5,
        });
        read_all(&request.plan().unwrap())
    };
    let expected = view([0, 1, 2].map(|i| Location::from(&places[i])));
    let server = WebServer::start();
    let urls = ["base", "adapter", "extra"].iter().zip(&places);
    let urls: Vec<[String; 4]> = urls.map(|(name, path)| put(&server, path, name)).collect();
    for way in 0..4 {
        let network = network(&server);
        let [base, adapter, extra] = &urls[..] else {
            unreachable!("there are three");
        };
        let sources = [base, adapter, extra].map(|urls| at(&network, &urls[way]).unwrap());
        assert!(view(sources) == expected, "{}", base[way]);
    }
}

#[test]
fn identities_are_the_same_for_everyone_and_others_for_other_content() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let (other, _) = served(&directory, "base");
    let identity = |server: &WebServer, url: &str| {
        let directory = network(server).open(url).unwrap();
        directory.file(FIRST).unwrap().identity()
    };
    for url in &urls[1..] {
        assert_eq!(identity(&server, url), identity(&other, url), "{url}");
    }
    let before = urls.clone().map(|url| identity(&server, &url));
    let mut changed = std::fs::read(directory.join(FIRST)).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(directory.join(FIRST), changed).unwrap();
    put(&server, &directory, "base");
    for (url, before) in urls.iter().zip(before) {
        assert_ne!(identity(&server, url), before, "{url}");
    }
}

#[test]
fn a_file_alone_is_named_by_its_own_url() {
    let workspace = Workspace::new();
    let directory = workspace.write("one", &Checkpoint::single([bf16("w", &[300, 8])]));
    let (server, urls) = served(&directory, "one");
    for url in urls {
        let network = network(&server);
        let blob = network
            .file(&format!("{url}/model.safetensors"))
            .unwrap()
            .unwrap();
        let content = std::fs::read(directory.join("model.safetensors")).unwrap();
        assert!(blob.read_all(1 << 20).unwrap() == content, "{url}");
        assert!(
            network
                .file(&format!("{url}/other.gguf"))
                .unwrap()
                .is_none(),
            "{url}"
        );
    }
}

#[test]
fn a_place_that_cannot_be_is_refused_before_anything_is_sent() {
    let server = WebServer::start();
    let network = network(&server);
    for (url, word) in [
        ("ftp://host/m", "ftp://"),
        ("http://192.0.2.1/m", "encrypted"),
        ("https://user:secret@host/m", "password"),
        ("https://host/m?signature=secret", "query"),
        ("hf://model", "two names"),
        ("s3:///m", "host or bucket"),
        ("s3://bucket/m?secret=1", "environment"),
    ] {
        let error = network.open(url).unwrap_err();
        assert_eq!(error.code(), ckptfs::error::Code::UnsupportedPlace, "{url}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(server.requests().len(), 0);
}

//! GGUF files and importance matrices at URLs.

use std::path::Path;
use std::sync::OnceLock;

use ckptfs::error::Code;
use ckptfs::ops::GgufKind;
use ckptfs::source::remote::{Network, NetworkOptions};

use crate::common::Workspace;
use crate::common::readback::{read_all, reader};
use crate::common::web_server::WebServer;
use crate::imatrix::{Entry, older, planned};
use crate::model::{Model, plan};
use crate::output::{HIDDEN, llama};

/// The server that all URLs of this process lead to.
fn server() -> &'static WebServer {
    static SERVER: OnceLock<WebServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = WebServer::start();
        let mut options = NetworkOptions {
            stores: [
                ("AWS_ACCESS_KEY_ID", "key"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ENDPOINT_URL", &server.url()),
                ("AWS_ALLOW_HTTP", "true"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..NetworkOptions::default()
        };
        options.hub.endpoint = server.url();
        Network::choose(options);
        server
    })
}

#[test]
fn a_gguf_file_at_a_url_is_a_source_as_on_disk() {
    let workspace = Workspace::new();
    let mut model = Model::new("qwen3", 16, 4, 2).with_tokenizer();
    model.number("qwen3.attention.key_length", 8);
    model.same("model.norm.weight", "output_norm.weight", &[16]);
    let path = model.write(workspace.path());
    let server = server();
    for place in [
        "plain/model.gguf",
        "bucket/m/model.gguf",
        "hub/org/m/model.gguf",
    ] {
        server.put(place, std::fs::read(&path).unwrap());
    }
    let expected = read_all(&plan(&path, None, None));
    for url in [
        format!("{}/plain/model.gguf", server.url()),
        "s3://bucket/m/model.gguf".to_owned(),
        "hf://org/m/model.gguf".to_owned(),
        // The directory of it.
        "s3://bucket/m".to_owned(),
        "hf://org/m".to_owned(),
    ] {
        let found = read_all(&plan(url.as_ref(), None, None));
        assert!(found == expected, "{url}");
    }
}

#[test]
fn an_importance_matrix_at_a_url_counts_as_on_disk_and_is_pinned() {
    let workspace = Workspace::new();
    let base = workspace.write("tiny", &llama());
    let entry = |first: f32| -> Entry {
        let sums = (0..HIDDEN).map(|i| first + i as f32).collect();
        ("blk.0.attn_q.weight", sums, vec![2.0])
    };
    let bytes = older(&[entry(1.0)]);
    let path = workspace.path().join("weights.imatrix");
    std::fs::write(&path, &bytes).unwrap();
    let server = server();
    let planned = |imatrix: &Path| planned(&base, GgufKind::Q4_1, imatrix);
    let expected = read_all(&planned(&path).unwrap());
    for (place, url) in [
        ("plain/i", format!("{}/plain/i", server.url())),
        ("bucket/i", "s3://bucket/i".to_owned()),
        ("hub/org/i", "hf://org/i".to_owned()),
    ] {
        let place = format!("{place}/weights.imatrix");
        let url = format!("{url}/weights.imatrix");
        server.put(&place, bytes.clone());
        let plan = planned(url.as_ref()).unwrap();
        assert!(read_all(&plan) == expected, "{url}");
        // Another one in its place is not used.
        let plan = planned(url.as_ref()).unwrap();
        server.put(&place, older(&[entry(9.0)]));
        let shard = &plan.shards[0];
        let mut bytes = vec![0; shard.len as usize];
        if let Err(error) = reader(&plan).read_at(shard.entry, 0, &mut bytes) {
            assert_eq!(error.code(), Code::SourceChanged, "{url}");
        } else {
            assert!(expected.values().any(|expected| *expected == bytes));
        }
        server.remove(&place);
        let error = planned(url.as_ref()).unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{url}");
        assert!(error.to_string().contains("imatrix: "), "{error}");
    }
}

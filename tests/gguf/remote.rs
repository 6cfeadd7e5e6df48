//! GGUF files at URLs.

use ckptfs::source::remote::{Network, NetworkOptions};

use crate::common::Workspace;
use crate::common::readback::read_all;
use crate::common::web_server::WebServer;
use crate::model::{Model, plan};

#[test]
fn a_gguf_file_at_a_url_is_a_source_as_on_disk() {
    let workspace = Workspace::new();
    let mut model = Model::new("qwen3", 16, 4, 2).with_tokenizer();
    model.number("qwen3.attention.key_length", 8);
    model.same("model.norm.weight", "output_norm.weight", &[16]);
    let path = model.write(workspace.path());
    let server = WebServer::start();
    for place in [
        "plain/model.gguf",
        "bucket/m/model.gguf",
        "hub/org/m/model.gguf",
    ] {
        server.put(place, std::fs::read(&path).unwrap());
    }
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

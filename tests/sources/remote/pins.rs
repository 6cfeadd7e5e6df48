//! Pin files: a view of them is the one that was planned, and nothing is asked for again.

use std::fs;
use std::sync::Arc;

use ckptfs::error::Code;
use ckptfs::source::remote::{Network, NetworkOptions, Pins};

use super::{SECOND, base, options, plan, put, served};
use crate::common::Workspace;
use crate::common::readback::{read_all, reader};
use crate::common::web_server::{Trouble, WebServer};

/// What planning `url` records, by way of a file.
fn recorded(workspace: &Workspace, options: &NetworkOptions, url: &str) -> Pins {
    let network = Network::new(NetworkOptions {
        record_pins: true,
        ..options.clone()
    });
    let network = network.unwrap();
    plan(&network, url).unwrap();
    let path = workspace.path().join("pins");
    fs::write(&path, network.recorded().to_bytes()).unwrap();
    Pins::read(&path).unwrap()
}

fn pinned(server: &WebServer, pins: Pins) -> Arc<Network> {
    let network = Network::new(NetworkOptions {
        pins: Some(Arc::new(pins)),
        ..options(server)
    });
    network.unwrap()
}

#[test]
fn planning_from_a_pin_file_asks_for_nothing() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    for url in &urls {
        let live = plan(&super::network(&server), url).unwrap();
        let pins = recorded(&workspace, &options(&server), url);
        assert!(!pins.is_empty());
        server.requests();
        let view = plan(&pinned(&server, pins), url).unwrap();
        let asked: Vec<String> = server.requests().into_iter().map(|it| it.path).collect();
        assert_eq!(asked, <[String; 0]>::default(), "{url}");
        assert!(read_all(&view) == read_all(&live), "{url}");
    }
}

#[test]
fn what_changed_since_it_was_pinned_is_an_error_and_never_mixed() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let pins = [0, 1].map(|way| recorded(&workspace, &options(&server), &urls[way]));
    let mut changed = fs::read(directory.join(SECOND)).unwrap();
    changed
        .iter_mut()
        .rev()
        .take(1 << 20)
        .for_each(|byte| *byte ^= 1);
    fs::write(directory.join(SECOND), changed).unwrap();
    put(&server, &directory, "base");
    for (pins, url) in pins.into_iter().zip(&urls) {
        let view = plan(&pinned(&server, pins), url).unwrap();
        let shard = &view.shards[1];
        let mut bytes = vec![0; 1 << 20];
        let error = reader(&view).read_at(shard.entry, shard.len - (1 << 20), &mut bytes);
        assert_eq!(error.unwrap_err().code(), Code::SourceChanged, "{url}");
    }
}

#[test]
fn pieces_are_of_the_content_that_was_pinned_alone() {
    let workspace = Workspace::new();
    let server = WebServer::start();
    let directory = workspace.write("base", &base());
    let urls = put(&server, &directory, "base");
    let pins = recorded(&workspace, &options(&server), &urls[1]);
    let network = pinned(&server, pins);
    // One level up is another listing: what is there now counts.
    let mut config = fs::read(directory.join("config.json")).unwrap();
    config.push(b'\n');
    server.put("bucket/models/base/config.json", config.clone());
    let opened = network.open("s3://bucket/models").unwrap();
    let found = opened.file("base/config.json").unwrap().read_all(1 << 20);
    assert_eq!(found.unwrap(), config);
}

#[test]
fn a_source_that_nothing_pins_needs_leave_again() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    server.trouble("", Trouble::NoPin, 0);
    let options = NetworkOptions {
        allow_unpinned: true,
        ..options(&server)
    };
    let pins = recorded(&workspace, &options, &urls[0]);
    let error = plan(&pinned(&server, pins), &urls[0]).unwrap_err();
    assert_eq!(error.code(), Code::Unpinned);
}

//! Repositories of the Hub.

use std::fs;
use std::os::unix::fs::symlink;

use ckptfs::error::Code;
use ckptfs::recipe::ViewRequest;
use ckptfs::source::remote::{HubOptions, Network, NetworkOptions};
use sha2::{Digest, Sha256};

use super::{FIRST, SECOND, base, network, options, plan, served};
use crate::common::Workspace;
use crate::common::readback::read_all;
use crate::common::web_server::{COMMIT, TOKEN, WebServer};

fn with_hub(server: &WebServer, change: impl FnOnce(&mut HubOptions)) -> std::sync::Arc<Network> {
    let mut options = options(server);
    change(&mut options.hub);
    Network::new(options).unwrap()
}

#[test]
fn revisions_are_resolved_once_and_named_in_urls() {
    let workspace = Workspace::new();
    let (server, _) = served(&workspace.write("base", &base()), "base");
    for revision in ["", "@v1", "@refs%2Fpr%2F3", &format!("@{COMMIT}")] {
        server.requests();
        let view = plan(&network(&server), &format!("hf://org/base{revision}")).unwrap();
        read_all(&view);
        let paths: Vec<String> = server.requests().into_iter().map(|it| it.path).collect();
        let asked = paths
            .iter()
            .filter(|path| path.contains("/revision/"))
            .count();
        assert_eq!(asked, usize::from(!revision.contains(COMMIT)), "{paths:?}");
        let resolved = paths.iter().filter(|path| path.contains("/resolve/"));
        assert!(resolved.clone().count() > 0);
        assert!(
            resolved.clone().all(|path| path.contains(COMMIT)),
            "{paths:?}"
        );
    }
}

#[test]
fn what_the_hub_refuses_is_told_apart() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let server = WebServer::start();
    for repository in ["org/base", "private/base", "gated/base"] {
        server.put_directory(&format!("hub/{repository}"), &directory);
    }
    let network = network(&server);
    let error = |url: &str| plan(&network, url).unwrap_err();
    assert_eq!(error("hf://org/base@nowhere").code(), Code::NoRevision);
    assert_eq!(error("hf://org/other").code(), Code::NotFound);
    assert_eq!(error("hf://private/base").code(), Code::NotFound);
    assert!(error("hf://private/base").to_string().contains("HF_TOKEN"));
    assert_eq!(error("hf://gated/base").code(), Code::GatedRepository);
    let with_token = with_hub(&server, |hub| hub.token = Some(TOKEN.to_owned()));
    let view = plan(&with_token, "hf://private/base").unwrap();
    read_all(&view);
}

#[test]
fn a_token_is_sent_to_the_hub_alone_and_shown_nowhere() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let server = WebServer::start();
    server.put_directory("hub/private/base", &directory);
    let network = with_hub(&server, |hub| hub.token = Some(TOKEN.to_owned()));
    server.requests();
    // The second server refuses whoever sends one.
    let view = plan(&network, "hf://private/base").unwrap();
    read_all(&view);
    let requests = server.requests();
    let (signed, rest): (Vec<_>, Vec<_>) = requests
        .iter()
        .partition(|request| request.query.starts_with("signature"));
    assert!(!signed.is_empty() && !rest.is_empty());
    assert!(
        signed
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
    assert!(
        rest.iter()
            .all(|request| request.headers.contains_key("authorization"))
    );
    let bodies = requests
        .iter()
        .filter(|request| request.headers.contains_key("range"));
    assert!(
        bodies
            .clone()
            .all(|request| request.headers["accept-encoding"] == "identity")
    );
    assert!(!format!("{network:?} {view:?}").contains(TOKEN));
}

#[test]
fn a_signed_url_that_has_expired_is_asked_for_again() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let view = plan(&network(&server), &urls[2]).unwrap();
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    server.expire();
    assert!(read_all(&view) == expected);
}

#[test]
fn another_content_of_a_commit_is_an_error() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let view = plan(&network(&server), &urls[2]).unwrap();
    let other = vec![1; fs::metadata(directory.join(SECOND)).unwrap().len() as usize];
    server.put(&format!("hub/org/base/{SECOND}"), other);
    server.expire();
    let reader = crate::common::readback::reader(&view);
    let mut bytes = vec![0; 1 << 20];
    let shard = &view.shards[1];
    let error = reader
        .read_at(shard.entry, 2 << 20, &mut bytes)
        .unwrap_err();
    assert_eq!(error.code(), Code::SourceChanged);
}

#[test]
fn a_directory_of_a_repository_is_a_checkpoint() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let server = WebServer::start();
    server.put_directory("hub/org/all/nested/one", &directory);
    server.put("hub/org/all/README.md", "not of it");
    let view = plan(&network(&server), "hf://org/all/nested/one").unwrap();
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    assert!(read_all(&view) == expected);
}

/// The cache of `huggingface_hub` with the files `names` of `directory`.
fn cache(workspace: &Workspace, directory: &std::path::Path, names: &[&str]) -> std::path::PathBuf {
    let hub = workspace.path().join("hub");
    let repository = hub.join("models--org--base");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(repository.join("blobs")).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for name in names {
        let content = fs::read(directory.join(name)).unwrap();
        let hash: String = Sha256::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(repository.join("blobs").join(&hash), content).unwrap();
        symlink(format!("../../blobs/{hash}"), snapshot.join(name)).unwrap();
    }
    hub
}

#[test]
fn complete_files_of_the_local_cache_are_files_of_this_machine() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let (server, urls) = served(&directory, "base");
    let hub = cache(&workspace, &directory, &[SECOND]);
    let before = fs::read_dir(hub.join("models--org--base/blobs"))
        .unwrap()
        .count();
    let network = with_hub(&server, |options| options.cache = Some(hub.clone()));
    let opened = network.open(&urls[2]).unwrap();
    assert!(opened.file(SECOND).unwrap().as_local().is_some());
    assert!(opened.file(FIRST).unwrap().as_local().is_none());
    let view = plan(&network, &urls[2]).unwrap();
    server.requests();
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    assert!(read_all(&view) == expected);
    assert!(
        server
            .requests()
            .iter()
            .all(|request| !request.path.ends_with(SECOND))
    );
    let after = fs::read_dir(hub.join("models--org--base/blobs"))
        .unwrap()
        .count();
    assert_eq!(before, after, "nothing is written there");

    // One that is not complete is not used.
    let blob = fs::canonicalize(hub.join(format!("models--org--base/snapshots/{COMMIT}/{SECOND}")))
        .unwrap();
    fs::File::options()
        .write(true)
        .open(blob)
        .unwrap()
        .set_len(1000)
        .unwrap();
    assert!(
        network
            .open(&urls[2])
            .unwrap()
            .file(SECOND)
            .unwrap()
            .as_local()
            .is_none()
    );
}

#[test]
fn offline_the_local_cache_is_all_there_is() {
    let workspace = Workspace::new();
    let directory = workspace.write("base", &base());
    let server = WebServer::start();
    let names = [
        FIRST,
        SECOND,
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
    ];
    let hub = cache(&workspace, &directory, &names);
    let network = Network::new(NetworkOptions {
        hub: HubOptions {
            offline: true,
            cache: Some(hub),
            ..options(&server).hub
        },
        ..options(&server)
    });
    let network = network.unwrap();
    let expected = read_all(&ViewRequest::new(&directory).plan().unwrap());
    for url in [
        "hf://org/base",
        "hf://org/base@main",
        &format!("hf://org/base@{COMMIT}"),
    ] {
        assert!(read_all(&plan(&network, url).unwrap()) == expected, "{url}");
    }
    let error = plan(&network, "hf://org/base@other").unwrap_err();
    assert_eq!(error.code(), Code::ModelMissing);
    assert_eq!(server.requests().len(), 0);
}

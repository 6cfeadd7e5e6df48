//! Edited files on a mount, beside shards that are the source's.

use std::fs;
use std::sync::Arc;

use ckptfs::fuse::{self, MountOptions};
use ckptfs::provenance::Files;
use ckptfs::read::Reader;
use serde_json::{Value, json};

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, small};
use crate::fixture::request;

#[test]
fn edits_leave_every_shard_a_source_file_and_a_mount_shows_what_they_made() {
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", small(["a", "b"]))
        .shard("model-00002-of-00002.safetensors", small(["c"]))
        .config("{\"model_type\": \"x\"}")
        .aux("README.md", "x");
    let base = workspace.write("base", &checkpoint);
    let template = workspace.path().join("template");
    fs::write(&template, "{{ x }}").unwrap();
    let add = format!("chat_template.jinja={}", template.display());
    let edits = [
        ("set", "model_type=\"y\""),
        ("add_file", &*add),
        ("drop_file", "*.md"),
    ];
    let request = request(&base, &edits);
    let plan = Arc::new(request.plan().unwrap());
    for shard in &plan.shards {
        assert_eq!(shard.whole_file, Some(base.join(&shard.name)));
        assert!(plan.view.file(shard.entry).unwrap().whole_file().is_some());
    }
    let mountpoint = workspace.path().join("mount");
    fs::create_dir(&mountpoint).unwrap();
    let options = MountOptions {
        sources: request.sources(),
        provenance: Some(Arc::new(Files::new(plan.clone()))),
        ..MountOptions::default()
    };
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let mounted = fuse::mount(reader, &mountpoint, &options).unwrap();
    let read = |name: &str| fs::read(mountpoint.join(name)).unwrap();
    for shard in &plan.shards {
        assert_eq!(read(&shard.name), fs::read(base.join(&shard.name)).unwrap());
    }
    assert_eq!(read("config.json"), b"{\"model_type\": \"y\"}");
    assert_eq!(read("chat_template.jinja"), b"{{ x }}");
    assert!(!mountpoint.join("README.md").exists());
    let told = |name: &str| -> Value {
        let mut value = vec![0; 1 << 16];
        let attribute = "user.ckptfs.provenance";
        let len = rustix::fs::getxattr(mountpoint.join(name), attribute, &mut value).unwrap();
        serde_json::from_slice(&value[..len]).unwrap()
    };
    let config = told("config.json");
    let (kind, asked) = (&config["kind"], &config["asked"]);
    assert_eq!(*kind, "edited_file");
    let expected = json!({
        "file": "config.json", "edit": "set", "path": "model_type", "old": "\"x\"", "new": "\"y\"",
    });
    assert_eq!(*asked, json!([expected]));
    let added = told("chat_template.jinja");
    assert_eq!(added["kind"], "source_file");
    assert_eq!(added["from"], *template.to_str().unwrap());
    assert_eq!(added["asked"][0]["edit"], "added");
    mounted.unmount().unwrap();
}

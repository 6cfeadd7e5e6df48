//! What a mount writes beside the view: its log, and facts. Never to a source or the mountpoint.

use std::fs;
use std::os::unix::fs::symlink;

use crate::fixture::{Fixture, Kind, assert_refused, is_mounted, read_tree};

#[test]
fn a_log_or_facts_in_a_source_or_the_mountpoint_are_refused_and_nothing_is_written() {
    let fixture = Fixture::new();
    symlink("base", fixture.path("link")).unwrap();
    fs::hard_link(
        fixture.base.join("model-00001-of-00002.safetensors"),
        fixture.path("hard.log"),
    )
    .unwrap();
    let before = read_tree(&fixture.path(""));
    let source = "which the view is made from";
    let mountpoint = "which the view is to be mounted on";
    for (path, why) in [
        ("base/model-00001-of-00002.safetensors", source),
        ("base/new.log", source),
        ("link/new.log", source),
        ("hard.log", source),
        ("extra/config.json", source),
        ("mount point/x.log", mountpoint),
        ("mount point/../mount point/x.log", mountpoint),
    ] {
        let path = fixture.path(path);
        let path = path.to_str().unwrap();
        for flag in ["--log-file", "--facts-cache"] {
            let output = fixture.try_mount(Kind::Patched, &fixture.mountpoint, &[flag, path]);
            assert_refused(&output, &[path, why, "choose another place"]);
            assert!(read_tree(&fixture.path("")) == before, "{flag} {path}");
            assert!(!is_mounted(&fixture.mountpoint));
        }
    }
    fixture.mount(Kind::Patched, &[]);
}

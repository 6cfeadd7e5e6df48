//! Links that lead out of a source, on a mount for other users.

use std::fs;
use std::os::unix::fs::symlink;

use crate::fixture::{Fixture, Kind, assert_refused, stderr};

/// Moves `name` of the base out of it and leaves a link.
fn move_out(fixture: &Fixture, name: &str) {
    let inside = fixture.base.join(name);
    let outside = fixture.path("outside");
    fs::rename(&inside, &outside).unwrap();
    symlink(&outside, &inside).unwrap();
}

#[test]
fn a_link_out_of_a_source_is_shown_to_other_users_only_if_allowed() {
    for name in [
        "model-00001-of-00002.safetensors",
        "README.md",
        "config.json",
        "tokenizer",
        "tokenizer/deep/vocab.json",
    ] {
        let fixture = Fixture::new();
        move_out(&fixture, name);
        let outside = fixture.path("outside");
        for (flags, is_allowed) in [
            (["--allow-other"].as_slice(), false),
            (&["--allow-other", "--follow-symlinks"], true),
            (&[], true),
        ] {
            let output = fixture.try_mount(Kind::PatchedFp8, &fixture.mountpoint, flags);
            if is_allowed {
                assert!(output.status.success(), "{name}: {}", stderr(&output));
                assert!(fixture.unmount(&[]).status.success());
            } else {
                let link = fixture.base.join(name.split('/').next().unwrap());
                let parts = [link.to_str(), outside.to_str(), Some("--follow-symlinks")];
                assert_refused(&output, &parts.map(Option::unwrap));
                assert!(!fixture.is_mounted());
            }
        }
    }
}

#[test]
fn links_inside_a_source_and_into_the_blobs_of_its_hub_repository_are_followed() {
    let mut fixture = Fixture::new();
    let repository = fixture.path("models--org--name");
    let snapshot = repository.join("snapshots/0123abcd");
    fs::create_dir_all(repository.join("blobs")).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (number, entry) in fs::read_dir(&fixture.base).unwrap().enumerate() {
        let entry = entry.unwrap();
        let blob = format!("blobs/{number}");
        fs::rename(entry.path(), repository.join(&blob)).unwrap();
        let link = snapshot.join(entry.file_name());
        symlink(format!("../../{blob}"), link).unwrap();
    }
    symlink("README.md", snapshot.join("LICENSE")).unwrap();
    fixture.base = snapshot;
    fixture.mount(Kind::PatchedFp8, &["--allow-other"]);
    let license = fs::read_to_string(fixture.mountpoint.join("LICENSE")).unwrap();
    assert_eq!(license, "# A model\n");
}

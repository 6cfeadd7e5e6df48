//! A mount of a padded, untied view.

use std::fs;
use std::sync::Arc;

use ckptfs::fuse::{self, MountOptions};
use ckptfs::ops::Pad;
use ckptfs::provenance::Files;
use ckptfs::read::Reader;
use ckptfs::recipe::ViewRequest;

use crate::common::{Workspace, materialized};
use crate::fixture::tied;

#[test]
fn a_mount_shows_what_materialize_writes_and_passes_old_shards_through() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &tied());
    let request = ViewRequest::new(&*base).with(|asked| {
        asked.tying.untie = true;
        asked.vocabulary.size = Some(500);
        asked.vocabulary.pad = Some(Pad::Mean);
    });
    let written = materialized(&workspace, "written", &request);
    let plan = Arc::new(request.plan().unwrap());
    let mountpoint = workspace.path().join("mount");
    fs::create_dir(&mountpoint).unwrap();
    let options = MountOptions {
        sources: request.sources(),
        provenance: Some(Arc::new(Files::new(plan.clone()))),
        ..MountOptions::default()
    };
    let reader = Arc::new(Reader::new(plan.view.clone(), 1 << 20));
    let mounted = fuse::mount(reader, &mountpoint, &options).unwrap();
    let mut names: Vec<_> = fs::read_dir(&written)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        let read = |directory: &std::path::Path| fs::read(directory.join(&name)).unwrap();
        assert!(read(&mountpoint) == read(&written), "{name:?}");
    }
    let norm = &plan.shards[1];
    assert_eq!(
        fs::read(mountpoint.join(&norm.name)).unwrap(),
        fs::read(base.join("model-00002-of-00002.safetensors")).unwrap()
    );
    assert!(norm.whole_file.is_some());
    mounted.unmount().unwrap();
}

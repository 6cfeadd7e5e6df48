//! A view lets nobody read what its sources would not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use ckptfs::view::View;
use rustix::process::geteuid;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::{Workspace, plan_by_rules};

/// Whose a source is, beside the base directory.
#[derive(Debug, Clone, Copy)]
struct Of {
    another_owner: bool,
    another_group: bool,
}

const OF_THE_SAME: Of = Of {
    another_owner: false,
    another_group: false,
};

/// The mode of the FP8 shard made from a source of this mode.
fn mode_of_computed_shard(mode: u32, of: Of) -> u32 {
    /// Neither root's nor that of whoever runs tests.
    const ANOTHER: u32 = 12345;
    let workspace = Workspace::new();
    let base = workspace.write(
        "base",
        &Checkpoint::single([bf16("model.layers.0.mlp.down_proj.weight", &[128, 128])]),
    );
    let shard = base.join("model.safetensors");
    fs::set_permissions(&shard, fs::Permissions::from_mode(mode)).unwrap();
    let owner = of.another_owner.then_some(ANOTHER);
    chown(&shard, owner, of.another_group.then_some(ANOTHER)).unwrap();
    let view = plan_by_rules(&base).unwrap().view;
    let id = view.lookup(View::ROOT, "model.safetensors".as_ref());
    let entry = view.get(id.unwrap()).unwrap();
    let directory = base.metadata().unwrap();
    let owners = (entry.attributes.uid, entry.attributes.gid);
    assert_eq!(owners, (directory.uid(), directory.gid()));
    entry.attributes.mode
}

#[test]
fn a_computed_shard_has_its_sources_mode_without_write_bits() {
    assert_eq!(mode_of_computed_shard(0o644, OF_THE_SAME), 0o444);
    assert_eq!(mode_of_computed_shard(0o600, OF_THE_SAME), 0o400);
    assert_eq!(mode_of_computed_shard(0o640, OF_THE_SAME), 0o440);
}

#[test]
fn an_owner_or_group_that_is_not_the_sources_may_do_what_everyone_may() {
    if !geteuid().is_root() {
        println!("not tested: only root can give a file to another user");
        return;
    }
    let mode = |mode, another_owner, another_group| {
        let of = Of {
            another_owner,
            another_group,
        };
        mode_of_computed_shard(mode, of)
    };
    assert_eq!(mode(0o640, false, true), 0o400);
    assert_eq!(mode(0o640, true, false), 0o040);
    assert_eq!(mode(0o600, true, true), 0o000);
    assert_eq!(mode(0o644, true, true), 0o444);
}

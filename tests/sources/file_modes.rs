//! A view lets nobody read what its sources would not. (Changing owners needs root.)

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use ckptfs::view::View;

use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::{Workspace, plan_by_rules};

/// The mode of the FP8 shard made from a source of this mode, owner and group. The base directory
/// has owner and group 0.
fn mode_of_computed_shard(mode: u32, owner: u32, group: u32) -> u32 {
    let workspace = Workspace::new();
    let base = workspace.write(
        "base",
        &Checkpoint::single([bf16("model.layers.0.mlp.down_proj.weight", &[128, 128])]),
    );
    chown(&base, Some(0), Some(0)).unwrap();
    let shard = base.join("model.safetensors");
    fs::set_permissions(&shard, fs::Permissions::from_mode(mode)).unwrap();
    chown(&shard, Some(owner), Some(group)).unwrap();
    let view = plan_by_rules(&base).unwrap().view;
    let id = view.lookup(View::ROOT, "model.safetensors".as_ref());
    let entry = view.get(id.unwrap()).unwrap();
    assert_eq!((entry.attributes.uid, entry.attributes.gid), (0, 0));
    entry.attributes.mode
}

#[test]
fn a_computed_shard_has_its_sources_mode_without_write_bits() {
    assert_eq!(mode_of_computed_shard(0o644, 0, 0), 0o444);
    assert_eq!(mode_of_computed_shard(0o600, 0, 0), 0o400);
    assert_eq!(mode_of_computed_shard(0o640, 0, 0), 0o440);
}

#[test]
fn an_owner_or_group_that_is_not_the_sources_may_do_what_everyone_may() {
    assert_eq!(mode_of_computed_shard(0o640, 0, 1), 0o400);
    assert_eq!(mode_of_computed_shard(0o640, 1, 0), 0o040);
    assert_eq!(mode_of_computed_shard(0o600, 1, 1), 0o000);
    assert_eq!(mode_of_computed_shard(0o644, 1, 1), 0o444);
}

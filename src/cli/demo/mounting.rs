//! The view of the demo, mounted.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ckptfs::fuse::{self, MountOptions};
use ckptfs::read::Reader;
use ckptfs::recipe::{Plan, ViewRequest};

use super::showing::{say, show};
use crate::cli::messages::flag;

/// Cache of computed tiles, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Mounts the view on `mountpoint` and shows it, and says so if this machine cannot. Returns whether it
/// was mounted.
pub(super) fn show_mounted(
    request: &ViewRequest,
    plan: &Plan,
    mountpoint: &Path,
    [base, extra]: [&Path; 2],
) -> anyhow::Result<bool> {
    fs::create_dir(mountpoint)?;
    let reader = Arc::new(Reader::new(plan.view.clone(), CACHE_BYTES));
    let options = MountOptions {
        source_name: base.into(),
        sources: request.sources(),
        ..MountOptions::default()
    };
    match fuse::mount(reader, mountpoint, &options) {
        Ok(mounted) => {
            say("$ ckptfs mount --base base --extra extra --fp8 view")?;
            let shown = show(mountpoint, base, extra);
            mounted.unmount()?;
            shown?;
            say("$ ckptfs unmount view")?;
            Ok(true)
        }
        Err(error) => {
            say(&format!(
                "FUSE cannot be used here ({}), so the view is written to disk instead:",
                error.logged(flag)
            ))?;
            fs::remove_dir(mountpoint)?;
            Ok(false)
        }
    }
}

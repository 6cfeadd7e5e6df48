//! `ckptfs unmount`

use std::path::PathBuf;

use clap::Args;

/// What to unmount.
#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Directory that a view is mounted on
    mountpoint: PathBuf,

    /// Detach the mount even if it is in use; files that are open stay readable
    #[arg(long)]
    lazy: bool,
}

/// Unmounts a view; returns once it is gone.
pub(crate) fn run(args: &UnmountArgs) -> anyhow::Result<()> {
    Ok(ckptfs::fuse::unmount(&args.mountpoint, args.lazy)?)
}

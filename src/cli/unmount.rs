//! `ckptfs unmount`

use std::path::PathBuf;

use clap::Args;

/// What to unmount.
#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Mountpoint of the view
    mountpoint: PathBuf,

    /// Detach the mount even if it is in use; open files stay readable
    #[arg(long)]
    lazy: bool,
}

/// Unmounts a view; returns once it is gone.
pub(crate) fn run(args: &UnmountArgs) -> anyhow::Result<()> {
    let mut mountpoint = args.mountpoint.clone();
    if let Ok(absolute) = std::path::absolute(&mountpoint) {
        // A process in a directory of the mount would itself keep it from being unmounted.
        if std::env::set_current_dir("/").is_ok() {
            mountpoint = absolute;
        }
    }
    Ok(ckptfs::fuse::unmount(&mountpoint, args.lazy)?)
}

//! What the program is, and what comes before any job of it.

use ckptfs::fast_paths::FastPath;
use rustix::process::{Resource, Rlimit};

/// The version, and what the program was built from.
pub(crate) const BUILD: &str = env!("CKPTFS_BUILD");

/// What comes before any job.
pub(crate) fn start() -> anyhow::Result<()> {
    raise_open_files_limit();
    Ok(FastPath::check_environment()?)
}

/// Sources stay open once they were used, as far as half of the limit goes, and a checkpoint can
/// have many shards.
fn raise_open_files_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

//! What commands on views and directories ask of mounts. In a build without mounts there are none to ask.

use std::path::Path;

use ckptfs::verify::KnownScales;

/// Checks that `path` is not in a mount that does not answer.
#[cfg(feature = "fuse")]
pub(crate) fn check_answers(path: &Path) -> ckptfs::Result<()> {
    ckptfs::fuse::check_answers(path)
}

#[cfg(not(feature = "fuse"))]
pub(crate) fn check_answers(_path: &Path) -> ckptfs::Result<()> {
    Ok(())
}

/// The scales that a mount at `directory` says it computes.
#[cfg(feature = "fuse")]
pub(crate) fn known_scales(directory: &Path) -> KnownScales {
    let plan = ckptfs::fuse::mount_plan(directory);
    let known = plan.map(|plan| KnownScales::of_mount(plan.device, &plan.text));
    known.unwrap_or_default()
}

#[cfg(not(feature = "fuse"))]
pub(crate) fn known_scales(_directory: &Path) -> KnownScales {
    KnownScales::default()
}

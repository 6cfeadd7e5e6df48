//! What the kernel would read straight from the sources, were the view mounted.

use indicatif::BinaryBytes;

use ckptfs::fuse::PassthroughOutlook;
use ckptfs::provenance::Counts;
use ckptfs::recipe::Plan;
use ckptfs::text::{counted, percent};

/// Who reads the files of a mount.
pub(super) fn mount_line(plan: &Plan, counts: &Counts) -> String {
    let PassthroughOutlook {
        files,
        bytes,
        obstacle,
    } = PassthroughOutlook::new(&plan.view);
    match obstacle {
        Some(obstacle) => format!("mount  ckptfs answers every first read: {obstacle}\n"),
        None => format!(
            "mount  the kernel reads {} of {} ({}) straight from the sources\n",
            counted(files, "file"),
            BinaryBytes(bytes),
            percent(bytes, counts.shards.bytes + counts.other_files.bytes)
        ),
    }
}

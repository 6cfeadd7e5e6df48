//! What the kernel would read straight from the sources, were the view mounted.

use indicatif::BinaryBytes;
use serde::Serialize;

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

#[derive(Serialize)]
pub(super) struct PassthroughJson {
    /// Files that are whole source files, and their bytes.
    files: usize,
    bytes: u64,
    /// Why the kernel does not read them from the sources; null if it does.
    obstacle: Option<String>,
}

impl PassthroughJson {
    pub(super) fn new(plan: &Plan) -> Self {
        let outlook = PassthroughOutlook::new(&plan.view);
        PassthroughJson {
            files: outlook.files,
            bytes: outlook.bytes,
            obstacle: outlook.obstacle,
        }
    }
}

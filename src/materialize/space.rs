//! Whether there is room for what a run writes.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::catalog::Extent;
use crate::error::setting::CHECK_SPACE;
use crate::error::{Code, Error, Hint, Result};
use crate::materialize::copy;
use crate::materialize::new_file::NewFile;
use crate::materialize::options::Options;
use crate::recipe::Plan;
use crate::source::LocalFile;

/// What a run would do with its files.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// Files that the run is to give, and their bytes.
    pub files: usize,
    pub bytes: u64,
    /// Those of the files that an earlier run of the same request recorded as complete. The next
    /// one checks them before it keeps them.
    pub kept: usize,
    pub kept_bytes: u64,
    /// Those of the files that are to be hard links, and their bytes.
    pub linked: usize,
    pub linked_bytes: u64,
    /// Bytes that the filesystem may share with the sources.
    pub shared_bytes: u64,
    /// Bytes that are written.
    pub written_bytes: u64,
    /// Bytes of the filesystem's blocks that these take.
    pub needed: u64,
    /// Bytes that this user can write there; `None` if the filesystem does not tell.
    pub available: Option<u64>,
    /// Whether they become objects of a store, which has no filesystem and no bound.
    pub in_store: bool,
}

/// # Errors
/// If `files`, which are to be written into `view`, take more than there is.
pub(super) fn check(
    files: &[&NewFile],
    view: &Path,
    shown: &Path,
    options: &Options,
) -> Result<()> {
    if !options.check_space {
        return Ok(());
    }
    let outlook = Room::at(view)?.outlook(files, view, options);
    match outlook.available {
        Some(available) if available < outlook.needed => {
            Err(too_little(&outlook, available, shown))
        }
        _ => Ok(()),
    }
}

/// The error that there are only `available` bytes where `outlook` needs more.
fn too_little(outlook: &Outlook, available: u64, shown: &Path) -> Error {
    let large = |bytes: u64| match bytes >> 30 {
        0 => String::new(),
        _ => format!(" ({:.1} GiB)", bytes as f64 / f64::from(1 << 30)),
    };
    let problem = format!(
        "too little space: {} bytes{} are needed, and {available}{} are available",
        outlook.needed,
        large(outlook.needed),
        large(available),
    );
    let skip =
        Hint::give_value(CHECK_SPACE, "false").to("start anyway, where the filesystem compresses");
    Error::of_file(Code::NoSpace, shown, problem)
        .with_hint(Hint::text("make room, or write elsewhere").or(skip))
}

impl Outlook {
    /// Of the view of `plan`, all of which is written in `directory`.
    ///
    /// # Errors
    /// If the filesystem cannot be asked for its free space.
    pub(super) fn complete(plan: &Plan, directory: &Path) -> Result<Self> {
        let files = NewFile::all(plan);
        let bytes = files.iter().map(|file| file.content.len()).sum();
        Ok(Outlook {
            files: files.len(),
            bytes,
            kept: files.len(),
            kept_bytes: bytes,
            available: Room::at(directory)?.available,
            ..Outlook::default()
        })
    }

    /// # Errors
    /// If there is less space than is needed in the directory `shown`.
    pub fn check_space(&self, shown: &Path) -> Result<()> {
        match self.available {
            Some(available) if available < self.needed => Err(too_little(self, available, shown)),
            _ => Ok(()),
        }
    }
}

/// The filesystem that is written to.
pub(super) struct Room {
    device: u64,
    shares_blocks: bool,
    block: u64,
    available: Option<u64>,
}

impl Room {
    pub(super) fn at(directory: &Path) -> Result<Self> {
        let io = |action: &'static str| move |e| Error::io(action, directory, e);
        let opened = File::open(directory).map_err(io("open"))?;
        let device = opened.metadata().map_err(io("read the attributes"))?.dev();
        let statistics = rustix::fs::fstatvfs(&opened)
            .map_err(|e| Error::io("ask for the free space", directory, e.into()))?;
        // Some of it may be kept for root.
        let free = if rustix::process::geteuid().is_root() {
            statistics.f_bfree
        } else {
            statistics.f_bavail
        };
        let block = statistics.f_frsize.max(1);
        Ok(Room {
            device,
            shares_blocks: copy::shares_blocks(&opened),
            block,
            // Network filesystems without such a number say 0 of 0.
            available: (statistics.f_blocks > 0).then(|| free.saturating_mul(block)),
        })
    }

    /// What becomes of `files`, which are not complete.
    pub(super) fn outlook(&self, files: &[&NewFile], view: &Path, options: &Options) -> Outlook {
        let mut outlook = Outlook::default();
        let mut regained = 0;
        for file in files {
            let len = file.content.len();
            // Of a run that was killed; it is deleted first.
            if let Ok(metadata) = view.join(&file.path).symlink_metadata()
                && metadata.nlink() == 1
            {
                regained += metadata.blocks() * 512;
            }
            let source = file.linkable();
            if options.hardlink && source.is_some_and(|source| self.is_here(source)) {
                outlook.linked += 1;
                outlook.linked_bytes += len;
                continue;
            }
            let shared = if self.shares_blocks {
                shareable(file)
            } else {
                0
            };
            outlook.shared_bytes += shared;
            outlook.written_bytes += len - shared;
            outlook.needed += (len - shared).next_multiple_of(self.block);
        }
        outlook.available = self.available.map(|free| free.saturating_add(regained));
        outlook
    }

    fn is_here(&self, source: &LocalFile) -> bool {
        source.device_and_inode().0 == self.device
    }
}

/// Bytes of `file` that may be shared: whether the sources are on the same filesystem is seen when
/// it is tried.
fn shareable(file: &NewFile) -> u64 {
    let segments = file.content.segments().iter();
    let shared = segments.filter(|segment| match &segment.place {
        Extent::Stored { blob, offset } => {
            blob.as_local().is_some() && copy::same_place(*offset, segment.start)
        }
        Extent::Made { .. } | Extent::Computed { .. } => false,
    });
    shared.map(|segment| segment.len).sum()
}

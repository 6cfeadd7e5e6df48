//! The files of objects.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::source::local::with_room;
use crate::source::remote::blocks::BLOCK;
use crate::source::remote::cache::index::{Index, Word};

/// The two files of an object.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) data: File,
    pub(super) index: Index,
}

pub(super) fn data_path(path: &Path) -> PathBuf {
    path.with_extension("data")
}

pub(super) fn index_path(path: &Path) -> PathBuf {
    path.with_extension("index")
}

/// What `block` of an object of `len` bytes takes on disk: whole pages.
pub(super) fn bytes_on_disk(len: u64, block: u64) -> u64 {
    const PAGE: u64 = 4096;
    let len = len.saturating_sub(block * BLOCK).min(BLOCK);
    len.next_multiple_of(PAGE)
}

impl Opened {
    /// The files at `path`.
    pub(super) fn open(path: &Path, len: u64, create: bool) -> io::Result<Self> {
        let open = |path: PathBuf| {
            let mut options = File::options();
            options.read(true).write(true).create(create).mode(0o600);
            with_room(|| options.open(&path))
        };
        let index = Index::new(open(index_path(path))?);
        let data = open(data_path(path))?;
        if create && data.metadata()?.len() != len {
            data.set_len(len)?;
        }
        Ok(Opened { data, index })
    }

    /// Takes `block` away, whose lock is held.
    pub(super) fn evict(&self, block: u64, word: Word) -> io::Result<()> {
        self.index.set_word(block, word.next().busy())?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.data, flags, block * BLOCK, BLOCK)?;
        self.index.set_word(block, word.next().empty())
    }
}

/// All objects in `directory`: where their files are, and what these take on disk.
pub(super) fn objects(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    /// The unit of `st_blocks`.
    const SECTOR: u64 = 512;
    let mut objects = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "data")
            && let Ok(metadata) = path.metadata()
        {
            objects.push((path.with_extension(""), metadata.blocks() * SECTOR));
        }
    }
    Ok(objects)
}

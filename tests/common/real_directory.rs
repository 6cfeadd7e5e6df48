//! What filesystems of tests answer that stand before a real directory.

use std::fs::{self, DirEntry, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

/// How long the kernel may remember an answer: not at all, so that every change is seen.
pub(crate) const TTL: Duration = Duration::ZERO;

/// The attributes of the file of `metadata`, as those of `inode`.
pub(crate) fn attributes(inode: INodeNo, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanos: i64| {
        UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanos.unsigned_abs() as u32)
    };
    FileAttr {
        ino: inode,
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: kind(metadata),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub(crate) fn kind(metadata: &Metadata) -> FileType {
    if metadata.is_dir() {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

/// The `size` bytes of the file `path` from `offset`, or those up to its end.
pub(crate) fn read(path: &Path, offset: u64, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    let file = File::open(path).unwrap();
    let mut done = 0;
    loop {
        let count = file.read_at(&mut bytes[done..], offset + done as u64);
        match count.unwrap() {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    bytes
}

/// The entries of the directory `path` from number `offset`, each with the number of the next.
pub(crate) fn entries(path: &Path, offset: u64) -> impl Iterator<Item = (u64, DirEntry)> {
    let entries = fs::read_dir(path).unwrap();
    let mut entries: Vec<DirEntry> = entries.map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(DirEntry::file_name);
    (1..).zip(entries).skip(offset as usize)
}

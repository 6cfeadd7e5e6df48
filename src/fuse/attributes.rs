//! Entries of a view in the kernel's terms.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, Generation, INodeNo};

use crate::view::{Content, Entry, EntryId, View};

/// The unit in which the size of the filesystem is told, and preferred for I/O.
pub(super) const BLOCK: u32 = 4096;

/// The unit of `st_blocks`.
pub(super) const SECTOR: u64 = 512;

/// How long the kernel may trust names and attributes: a view never changes, so for a century.
pub(super) const TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Inodes never come to stand for another entry.
pub(super) const GENERATION: Generation = Generation(0);

/// The inode of an entry is its id + 1, so the top directory has FUSE's root inode.
pub(super) fn inode(id: EntryId) -> INodeNo {
    INodeNo(id as u64 + 1)
}

/// The entry of `inode`. There is none for 0, which the kernel never sends.
pub(super) fn id(inode: INodeNo) -> EntryId {
    inode.0.wrapping_sub(1) as EntryId
}

pub(super) fn kind(entry: &Entry) -> FileType {
    match entry.content {
        Content::File(_) => FileType::RegularFile,
        Content::Directory(_) => FileType::Directory,
    }
}

/// What `stat` shows of an entry.
pub(super) fn attributes(view: &View, id: EntryId) -> Option<FileAttr> {
    let entry = view.get(id)?;
    let (size, links) = match &entry.content {
        Content::File(content) => (content.len(), 1),
        Content::Directory(children) => {
            let is_directory = |child: &&EntryId| view.children(**child).is_some();
            // Its name, its ".", and the ".." of each directory in it.
            (0, 2 + children.iter().filter(is_directory).count())
        }
    };
    let attributes = &entry.attributes;
    Some(FileAttr {
        ino: inode(id),
        size,
        blocks: size.div_ceil(SECTOR),
        atime: attributes.mtime,
        mtime: attributes.mtime,
        ctime: attributes.mtime,
        crtime: attributes.mtime,
        kind: kind(entry),
        perm: (attributes.mode & 0o7777) as u16,
        nlink: links as u32,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    })
}

/// The attributes of no entry: inode 0 says that there is none of the name, and lets the kernel
/// remember that. It does not look at the rest.
pub(super) const NO_ENTRY: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

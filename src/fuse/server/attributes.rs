//! Entries of a view as `stat` shows them.

use std::time::{Duration, SystemTime};

use crate::view::{Content, Entry, EntryId, View};

/// The number by which the kernel knows a file or directory.
pub(in crate::fuse) type Inode = u64;

/// The inode of the top directory, as FUSE has it.
pub(in crate::fuse) const ROOT: Inode = 1;

const NATIVE: Inode = 1 << 47;

/// How long the kernel may keep names and attributes: a view never changes, so for a century.
pub(in crate::fuse) const TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuse) enum Kind {
    File,
    Directory,
}

/// What `stat` shows. Files and directories have a single time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuse) struct Stat {
    pub(in crate::fuse) inode: Inode,
    pub(in crate::fuse) kind: Kind,
    pub(in crate::fuse) size: u64,
    pub(in crate::fuse) time: SystemTime,
    /// Permission bits.
    pub(in crate::fuse) mode: u16,
    pub(in crate::fuse) links: u32,
    pub(in crate::fuse) uid: u32,
    pub(in crate::fuse) gid: u32,
}

/// What a name or an inode is, and how long the kernel may keep that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuse) struct Found {
    pub(in crate::fuse) stat: Stat,
    pub(in crate::fuse) ttl: Duration,
}

/// The inode of an entry is its id + 1, so the top directory has FUSE's root inode.
pub(in crate::fuse) fn inode(id: EntryId) -> Inode {
    id as Inode + 1
}

/// The inode of an entry that the kernel reads from the directory that the view is written to. It is
/// another, because the kernel reads a file in one way only while anybody has it open.
pub(super) fn native_inode(id: EntryId) -> Inode {
    inode(id) | NATIVE
}

/// Whether `inode` is a [`native_inode`].
pub(super) fn is_native(inode: Inode) -> bool {
    inode & NATIVE != 0
}

/// The entry of `inode`. There is none for 0, which the kernel never sends.
pub(super) fn id(inode: Inode) -> EntryId {
    (inode & !NATIVE).wrapping_sub(1) as EntryId
}

pub(super) fn kind(entry: &Entry) -> Kind {
    match entry.content {
        Content::File(_) => Kind::File,
        Content::Directory(_) => Kind::Directory,
    }
}

/// What `stat` shows of an entry.
pub(super) fn stat(view: &View, id: EntryId) -> Option<Stat> {
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
    Some(Stat {
        inode: inode(id),
        kind: kind(entry),
        size,
        time: attributes.mtime,
        mode: (attributes.mode & 0o7777) as u16,
        links: links as u32,
        uid: attributes.uid,
        gid: attributes.gid,
    })
}

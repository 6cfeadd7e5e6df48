//! `.ckptfs`, the directory in which a mount tells about itself: `stats.json`, its figures, and
//! `plan.json`, what it shows. It can be reached by name in the top directory and is in no listing
//! of it, so that whoever copies or searches a view gets the view alone.
//!
//! Every lookup of `stats.json` makes a new file, which the kernel knows by a number of its own, with the
//! figures of that moment: its length is exact and it never changes, so its pages may be cached like any
//! other's. The kernel keeps the name for no time and, as the file has no link, drops it once nobody has
//! it open. So nothing depends on a request to open it, which kernels do without
//! (`FastPath::SilentOpen`), or on direct I/O, which they allow only in the answer to such a request.
//!
//! `stat` shows one inode for all of these files: cp(1) and others look twice and refuse what became
//! another file in between. Attributes are kept for no time, and asked for again have that inode.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo, ReplyData, ReplyDirectory, ReplyDirectoryPlus};
use parking_lot::Mutex;

use crate::fuse::attributes::{BLOCK, GENERATION, SECTOR, TTL};
use crate::fuse::figures::Figures;
use crate::fuse::options::LazyText;
use crate::source::{Attributes, MOUNT_DIRECTORY};
use crate::view::View;

pub(super) const STATS: &str = "stats.json";
pub(super) const PLAN: &str = "plan.json";

/// Inodes from here on are not of the view.
const DIRECTORY: u64 = 1 << 48;
pub(super) const PLAN_INODE: u64 = DIRECTORY + 1;
/// What `stat` shows of every file of figures.
const STATS_INODE: u64 = DIRECTORY + 2;
/// What the kernel knows the first of them by.
const FIRST_SNAPSHOT: u64 = DIRECTORY + 3;

/// The directory and its files.
#[derive(Debug)]
pub(super) struct OwnFiles {
    plan: Option<LazyText>,
    /// Of the view's top directory: who may list that may read these.
    attributes: Attributes,
    mounted: SystemTime,
    snapshots: Mutex<Snapshots>,
}

/// What the kernel knows of by inode.
#[derive(Debug, Default)]
struct Snapshots {
    made: u64,
    known: HashMap<u64, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    text: Arc<[u8]>,
    made: SystemTime,
}

/// What a name stands for, and for how long.
pub(super) struct Found {
    pub(super) attributes: FileAttr,
    pub(super) ttl: Duration,
}

impl OwnFiles {
    pub(super) fn new(plan: Option<LazyText>, view: &View) -> Self {
        OwnFiles {
            plan,
            attributes: view.root().attributes,
            mounted: SystemTime::now(),
            snapshots: Mutex::default(),
        }
    }

    /// How long the kernel may keep the attributes of `inode`.
    pub(super) fn ttl(inode: INodeNo) -> Duration {
        match inode.0 >= FIRST_SNAPSHOT {
            true => Duration::ZERO,
            false => TTL,
        }
    }

    /// Whether `inode` is the directory or in it.
    pub(super) fn has(inode: INodeNo) -> bool {
        inode.0 >= DIRECTORY
    }

    /// What is called `name` in `parent`, if it is one of these.
    pub(super) fn lookup(&self, parent: INodeNo, name: &OsStr, figures: &Figures) -> Option<Found> {
        let (inode, ttl) = if parent == INodeNo::ROOT && name == MOUNT_DIRECTORY {
            (DIRECTORY, TTL)
        } else if parent.0 != DIRECTORY {
            return None;
        } else if name == PLAN {
            (PLAN_INODE, TTL)
        } else if name == STATS {
            (self.take_snapshot(figures), Duration::ZERO)
        } else {
            return None;
        };
        let attributes = FileAttr {
            ino: INodeNo(inode),
            ..self.attributes(INodeNo(inode))?
        };
        Some(Found { attributes, ttl })
    }

    /// Makes a file of the figures; gives its inode.
    fn take_snapshot(&self, figures: &Figures) -> u64 {
        let mut text = serde_json::to_vec_pretty(&figures.snapshot()).unwrap_or_default();
        text.push(b'\n');
        let known = Known {
            text: text.into(),
            made: SystemTime::now(),
        };
        let mut snapshots = self.snapshots.lock();
        let inode = FIRST_SNAPSHOT + snapshots.made;
        snapshots.made += 1;
        snapshots.known.insert(inode, known);
        inode
    }

    /// The kernel does not know `inode` any more. It is known by a single lookup, its own.
    pub(super) fn forget(&self, inode: INodeNo) {
        if inode.0 >= FIRST_SNAPSHOT {
            self.snapshots.lock().known.remove(&inode.0);
        }
    }

    /// The bytes of `inode`, if it is a file, and how old they are.
    fn file(&self, inode: INodeNo) -> Option<Known> {
        match inode.0 {
            PLAN_INODE => Some(Known {
                text: self.plan.as_ref()?.text(),
                made: self.mounted,
            }),
            _ => self.snapshots.lock().known.get(&inode.0).cloned(),
        }
    }

    /// Whether `inode` is one of the files.
    pub(super) fn has_file(&self, inode: INodeNo) -> bool {
        self.file(inode).is_some()
    }

    /// Answers with `size` bytes of `inode` from `offset`, fewer at its end.
    pub(super) fn read(&self, inode: INodeNo, offset: u64, size: u32, reply: ReplyData) {
        let Some(Known { text, .. }) = self.file(inode) else {
            return reply.error(Errno::ENOENT);
        };
        let from = text
            .len()
            .min(usize::try_from(offset).unwrap_or(usize::MAX));
        let to = text.len().min(from.saturating_add(size as usize));
        reply.data(&text[from..to]);
    }

    /// What `stat` shows of `inode`.
    pub(super) fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let directory = inode.0 == DIRECTORY;
        let (size, time) = match directory {
            true => (0, self.mounted),
            false => {
                let Known { text, made } = self.file(inode)?;
                (text.len() as u64, made)
            }
        };
        let (kind, mask, nlink) = match inode.0 {
            DIRECTORY => (FileType::Directory, 0o555, 2),
            PLAN_INODE => (FileType::RegularFile, 0o444, 1),
            // The kernel keeps an inode that has links for later, also where it has no name.
            _ => (FileType::RegularFile, 0o444, 0),
        };
        Some(FileAttr {
            ino: INodeNo(inode.0.min(STATS_INODE)),
            size,
            blocks: size.div_ceil(SECTOR),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: (self.attributes.mode & mask) as u16,
            nlink,
            uid: self.attributes.uid,
            gid: self.attributes.gid,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }

    /// Answers with the names in `directory` from position `from`.
    pub(super) fn readdir(&self, directory: INodeNo, from: u64, mut reply: ReplyDirectory) {
        if directory.0 != DIRECTORY {
            return reply.error(Errno::ENOTDIR);
        }
        for (position, (name, inode)) in (1..).zip(self.names()).skip(from as usize) {
            let kind = match inode {
                INodeNo::ROOT | INodeNo(DIRECTORY) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(inode, position, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    /// The same, with the attributes of what the names stand for: a lookup of each.
    pub(super) fn readdirplus(
        &self,
        directory: INodeNo,
        from: u64,
        figures: &Figures,
        mut reply: ReplyDirectoryPlus,
    ) {
        if directory.0 != DIRECTORY {
            return reply.error(Errno::ENOTDIR);
        }
        for (position, (name, _)) in (1..).zip(self.names()).skip(from as usize) {
            let found = match name {
                // Of these two, the kernel takes the names alone.
                "." | ".." => self.attributes(INodeNo(DIRECTORY)).map(|a| (a, TTL)),
                _ => {
                    let found = self.lookup(directory, OsStr::new(name), figures);
                    found.map(|Found { attributes, ttl }| (attributes, ttl))
                }
            };
            let Some((attributes, ttl)) = found else {
                continue;
            };
            let inode = attributes.ino;
            if reply.add(inode, position, name, &ttl, &attributes, GENERATION) {
                self.forget(inode);
                break;
            }
        }
        reply.ok();
    }

    /// What the directory holds.
    fn names(&self) -> impl Iterator<Item = (&'static str, INodeNo)> {
        let plan = self.plan.is_some().then_some((PLAN, INodeNo(PLAN_INODE)));
        let stats = (STATS, INodeNo(STATS_INODE));
        let dots = [(".", INodeNo(DIRECTORY)), ("..", INodeNo::ROOT)];
        dots.into_iter().chain(plan).chain([stats])
    }
}

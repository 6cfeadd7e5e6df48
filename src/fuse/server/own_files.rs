//! `.ckptfs`, the directory in which a mount tells about itself: `stats.json`, its figures, `plan.json`,
//! what it shows, and `recipe.yml`, with which other programs make the same view. It can be reached by
//! name in the top directory and is in no listing of it, so that copying or searching finds only the view.
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

use parking_lot::Mutex;

use crate::fuse::figures::Figures;
use crate::fuse::options::LazyText;
use crate::fuse::server::attributes::{Found, Inode, Kind, ROOT, Stat, TTL};
use crate::source::{Attributes, MOUNT_DIRECTORY};
use crate::view::View;

pub(in crate::fuse) const STATS: &str = "stats.json";
pub(in crate::fuse) const PLAN: &str = "plan.json";
const RECIPE: &str = "recipe.yml";

/// Inodes from here on are not of the view.
const DIRECTORY: Inode = 1 << 48;
pub(in crate::fuse) const PLAN_INODE: Inode = DIRECTORY + 1;
const RECIPE_INODE: Inode = DIRECTORY + 2;
/// What `stat` shows of every file of figures.
const STATS_INODE: Inode = DIRECTORY + 3;
/// What the kernel knows the first of them by.
const FIRST_SNAPSHOT: Inode = DIRECTORY + 4;

/// The directory and its files.
#[derive(Debug)]
pub(super) struct OwnFiles {
    plan: Option<LazyText>,
    recipe: Option<Arc<[u8]>>,
    /// Of the view's top directory: who may list that may read these.
    attributes: Attributes,
    mounted: SystemTime,
    snapshots: Mutex<Snapshots>,
}

/// What the kernel knows of by inode.
#[derive(Debug, Default)]
struct Snapshots {
    made: u64,
    known: HashMap<Inode, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    text: Arc<[u8]>,
    made: SystemTime,
}

impl OwnFiles {
    pub(super) fn new(plan: Option<LazyText>, recipe: Option<&str>, view: &View) -> Self {
        OwnFiles {
            plan,
            recipe: recipe.map(|text| text.as_bytes().into()),
            attributes: view.root().attributes,
            mounted: SystemTime::now(),
            snapshots: Mutex::default(),
        }
    }

    /// Whether `inode` is the directory or in it.
    pub(super) fn has(inode: Inode) -> bool {
        inode >= DIRECTORY
    }

    /// What is called `name` in `parent`, if it is one of these.
    pub(super) fn lookup(&self, parent: Inode, name: &OsStr, figures: &Figures) -> Option<Found> {
        let (inode, ttl) = if parent == ROOT && name == MOUNT_DIRECTORY {
            (DIRECTORY, TTL)
        } else if parent != DIRECTORY {
            return None;
        } else if name == PLAN {
            (PLAN_INODE, TTL)
        } else if name == RECIPE {
            (RECIPE_INODE, TTL)
        } else if name == STATS {
            (self.take_snapshot(figures), Duration::ZERO)
        } else {
            return None;
        };
        let stat = Stat {
            inode,
            ..self.stat(inode)?
        };
        Some(Found { stat, ttl })
    }

    /// Makes a file of the figures; gives its inode.
    fn take_snapshot(&self, figures: &Figures) -> Inode {
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
    pub(super) fn forget(&self, inode: Inode) {
        if inode >= FIRST_SNAPSHOT {
            self.snapshots.lock().known.remove(&inode);
        }
    }

    /// The bytes of `inode`, if it is a file, and how old they are.
    fn file(&self, inode: Inode) -> Option<Known> {
        match inode {
            PLAN_INODE => Some(Known {
                text: self.plan.as_ref()?.text(),
                made: self.mounted,
            }),
            RECIPE_INODE => Some(Known {
                text: self.recipe.clone()?,
                made: self.mounted,
            }),
            _ => self.snapshots.lock().known.get(&inode).cloned(),
        }
    }

    /// Whether `inode` is one of the files.
    pub(super) fn has_file(&self, inode: Inode) -> bool {
        self.file(inode).is_some()
    }

    /// All bytes of `inode`, if it is one of the files.
    pub(super) fn text(&self, inode: Inode) -> Option<Arc<[u8]>> {
        Some(self.file(inode)?.text)
    }

    /// What `inode` is, if it is one of these.
    pub(super) fn find(&self, inode: Inode) -> Option<Found> {
        Some(Found {
            stat: self.stat(inode)?,
            ttl: if inode >= FIRST_SNAPSHOT {
                Duration::ZERO
            } else {
                TTL
            },
        })
    }

    /// What `stat` shows of `inode`.
    fn stat(&self, inode: Inode) -> Option<Stat> {
        let (size, time) = match inode {
            DIRECTORY => (0, self.mounted),
            _ => {
                let Known { text, made } = self.file(inode)?;
                (text.len() as u64, made)
            }
        };
        let (kind, mask, links) = match inode {
            DIRECTORY => (Kind::Directory, 0o555, 2),
            PLAN_INODE | RECIPE_INODE => (Kind::File, 0o444, 1),
            // The kernel keeps an inode that has links for later, also where it has no name.
            _ => (Kind::File, 0o444, 0),
        };
        Some(Stat {
            inode: inode.min(STATS_INODE),
            kind,
            size,
            time,
            mode: (self.attributes.mode & mask) as u16,
            links,
            uid: self.attributes.uid,
            gid: self.attributes.gid,
        })
    }

    /// What `directory` holds, if it is the directory.
    pub(super) fn names(
        &self,
        directory: Inode,
    ) -> Option<impl Iterator<Item = (&'static str, Inode, Kind)>> {
        let plan = self.plan.as_ref();
        let plan = plan.map(|_| (PLAN, PLAN_INODE, Kind::File));
        let recipe = self.recipe.as_ref();
        let recipe = recipe.map(|_| (RECIPE, RECIPE_INODE, Kind::File));
        let stats = (STATS, STATS_INODE, Kind::File);
        let dots = [
            (".", DIRECTORY, Kind::Directory),
            ("..", ROOT, Kind::Directory),
        ];
        let names = dots.into_iter().chain(plan).chain(recipe).chain([stats]);
        (directory == DIRECTORY).then_some(names)
    }
}

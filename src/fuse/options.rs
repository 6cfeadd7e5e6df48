//! What may be asked of a mount.

use std::ffi::OsString;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use crate::error::{Spelling, as_keys};
use crate::named::named;
use crate::provenance;
use crate::read::Reader;
use crate::source::Location;

/// How a view is mounted.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Let all users in, each as far as the modes of the files allow; else only the user who
    /// mounts.
    pub allow_other: bool,
    /// Threads that answer requests; by default as many as there are CPUs, at least 2.
    pub threads: Option<usize>,
    /// What the mount table names as the source of the mount.
    pub source_name: OsString,
    /// Have no file of the mount be run as a program.
    pub no_exec: bool,
    /// What the view reads from. The mountpoint must not overlap with a directory of these.
    pub sources: Vec<Location>,
    /// Mount also on a directory that is not empty, and hide what is in it. Never on one that holds
    /// a source or another mount.
    pub nonempty: bool,
    /// Let the kernel read files that are whole source files straight from those, where it can
    /// and this process is root. It then notices changes of a source only when a file is opened.
    pub passthrough: bool,
    /// Bytes to read ahead of a sequential reader; 0 leaves it at what the kernel does by itself
    /// (128 KiB). Only root can have the kernel read further. Where it does not, tiles are computed
    /// ahead here, and four times as far where sources are slow or tiles take long.
    pub read_ahead: u64,
    /// How the view was asked for, as the mount's figures tell it.
    pub request: String,
    /// What the mount shows in `.ckptfs/plan.json`, if that is wanted.
    pub plan: Option<LazyText>,
    /// What the mount shows in `.ckptfs/recipe.yml`, if the view has a recipe.
    pub recipe: Option<String>,
    /// Have read(2) of all other files go past the page cache of the mount, as if each was opened
    /// with `O_DIRECT`: for whoever reads a file once, in large pieces. Mappings go through the page
    /// cache all the same, which needs Linux 6.6.
    pub direct_io: bool,
    /// Have a job write the view to a directory while it is mounted, which
    /// [`Mounted::persist`](crate::fuse::Mounted::persist) starts.
    pub persist: Option<PersistOptions>,
    /// Bring all files into the page cache in the background, by as many threads, as far as there is
    /// memory; those first that somebody reads.
    pub prefetch: Option<NonZeroUsize>,
    /// What the extended attribute [`crate::fuse::PROVENANCE_ATTRIBUTE`] of files tells; without it
    /// there are no extended attributes.
    pub provenance: Option<Arc<provenance::Files>>,
    /// How the log writes settings of the request in hints.
    pub spelling: Spelling,
}

/// How a view is written to a directory while it is mounted.
#[derive(Debug, Clone)]
pub struct PersistOptions {
    /// Where it is written to.
    pub directory: PathBuf,
    /// What an opening of a file does that is not complete.
    pub open: PersistOpen,
    /// Bytes that are written in a second, at most.
    pub rate: Option<NonZeroU64>,
}

/// What an opening of a file does that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PersistOpen {
    /// It waits until the file is complete, for a minute at most, if its process has opened the file
    /// before, as loaders do after a look at the header, or has read tensors of others.
    Wait,
    /// It waits for nothing. What is read is computed.
    #[default]
    Pass,
}

named!(PersistOpen {
    Wait: "wait",
    Pass: "pass"
});

/// A text that is made when somebody first asks for it.
#[derive(Clone)]
pub struct LazyText(Arc<LazyLock<Arc<[u8]>, MakeText>>);

type MakeText = Box<dyn FnOnce() -> Arc<[u8]> + Send>;

impl LazyText {
    /// What `make` will give.
    pub fn new(make: impl FnOnce() -> Arc<[u8]> + Send + 'static) -> Self {
        LazyText(Arc::new(LazyLock::new(Box::new(make))))
    }

    pub(super) fn text(&self) -> Arc<[u8]> {
        LazyLock::force(&self.0).clone()
    }
}

impl fmt::Debug for LazyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LazyText").finish_non_exhaustive()
    }
}

impl MountOptions {
    /// Enough that requests no longer limit the speed. More costs who reads here and there through
    /// a mapping: the kernel fills as much around the first hundred places.
    pub const DEFAULT_READ_AHEAD: u64 = 4 << 20;

    /// The same where a source is on another machine: what is fetched for nobody costs more there, and
    /// sources are read further ahead anyway.
    pub const DEFAULT_READ_AHEAD_OF_REMOTE: u64 = 1 << 20;

    /// The one of these that suits what `reader` reads.
    pub fn default_read_ahead(reader: &Reader) -> u64 {
        match reader.reads_remote() {
            true => Self::DEFAULT_READ_AHEAD_OF_REMOTE,
            false => Self::DEFAULT_READ_AHEAD,
        }
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            allow_other: false,
            threads: None,
            source_name: OsString::new(),
            no_exec: false,
            sources: Vec::new(),
            nonempty: false,
            passthrough: true,
            read_ahead: Self::DEFAULT_READ_AHEAD,
            request: String::new(),
            plan: None,
            recipe: None,
            direct_io: false,
            persist: None,
            prefetch: None,
            provenance: None,
            spelling: as_keys,
        }
    }
}

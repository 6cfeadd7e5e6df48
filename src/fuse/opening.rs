//! How files are opened: who reads their bytes, and through which page cache.

use std::io;
use std::sync::Arc;

use fuser::{
    BackingId, Errno, FileHandle, FopenFlags, InitFlags, KernelConfig, OpenFlags, ReplyOpen,
};

use crate::catalog::Extents;
use crate::error::Result;
use crate::fast_paths::FastPath;
use crate::fuse::options::MountOptions;
use crate::fuse::passthrough::{Passthrough, local_source};
use crate::stats::Serving;
use crate::view::{EntryId, View};

/// Handles of what is read through the page cache, from us.
const CACHED: FileHandle = FileHandle(0);

/// Handles of files that the kernel reads from their sources.
const PASSTHROUGH: FileHandle = FileHandle(1);

/// Handles of what is read past the page cache, from us; also what is mapped of it, through it.
pub(super) const DIRECT: FileHandle = FileHandle(2);

/// Handles of what is not of the view.
pub(super) const OWN: FileHandle = FileHandle(3);

/// Why a mount with [`MountOptions::direct_io`] fails.
const NO_DIRECT_IO: &str = "with --direct-io, programs could not map its files: that needs Linux \
     6.6 or later; mount without it, and open files with O_DIRECT instead";

/// The ways in which the files of a mount are opened.
#[derive(Debug)]
pub(super) struct Opening {
    /// `None` if it is not wanted.
    passthrough: Option<Passthrough>,
    /// Whether files are opened to be read past the page cache.
    direct_io: bool,
    /// What the kernel need not ask for any more once it was told so.
    silent: Silent,
}

/// Requests that kernels can do without.
#[derive(Debug, Default)]
struct Silent {
    open: bool,
    opendir: bool,
}

/// A way in which a file is opened.
#[derive(Debug)]
pub(super) enum Way {
    /// The kernel reads it from its source.
    Passthrough(Arc<BackingId>),
    /// It is read past the page cache, except by mappings; what the kernel is told for that.
    Direct(FopenFlags),
    /// It is read through the page cache.
    Cached,
    /// From now on, the kernel opens files by itself and keeps their pages.
    Unseen,
}

impl Opening {
    pub(super) fn new(options: &MountOptions) -> Self {
        Opening {
            passthrough: options.passthrough.then(Passthrough::default),
            direct_io: options.direct_io,
            silent: Silent::default(),
        }
    }

    /// Finds out what the kernel can do.
    ///
    /// # Errors
    /// If it cannot read past the page cache, and that is wanted.
    pub(super) fn negotiate(&mut self, view: &View, config: &mut KernelConfig) -> io::Result<()> {
        if self.direct_io {
            let mappings = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
            mappings.map_err(|_| io::Error::other(NO_DIRECT_IO))?;
        }
        if let Some(passthrough) = &mut self.passthrough {
            passthrough.request(view, config);
        }
        if FastPath::SilentOpen.is_enabled() {
            let offered = config.capabilities();
            self.silent = Silent {
                open: offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
                opendir: offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
            };
        }
        Ok(())
    }

    /// The way in which file `id`, which holds `content`, is opened with `flags`. Whoever takes it
    /// must answer `reply` with it.
    ///
    /// # Errors
    /// If it is all of a source that is not the file that was planned.
    pub(super) fn way(
        &self,
        id: EntryId,
        content: &Extents,
        flags: OpenFlags,
        reply: &ReplyOpen,
    ) -> Result<Way> {
        let passthrough = self.passthrough.as_ref();
        if let (Some(passthrough), Some(source)) = (passthrough, local_source(content))
            && let Some(backing) = passthrough.open(id, source, reply)?
        {
            return Ok(Way::Passthrough(backing));
        }
        if self.direct_io {
            // Of one large read with O_DIRECT, the kernel asks for several pieces at once; told
            // FOPEN_DIRECT_IO, it would ask for one after the other.
            return Ok(Way::Direct(match flags.0 & libc::O_DIRECT {
                0 => FopenFlags::FOPEN_DIRECT_IO,
                _ => FopenFlags::empty(),
            }));
        }
        let unseen = self.silent.open && !passthrough.is_some_and(Passthrough::needs_opens);
        Ok(match unseen {
            true => Way::Unseen,
            false => Way::Cached,
        })
    }

    /// Whether the kernel can open directories by itself from now on, and keep their lists.
    pub(super) fn directories_are_unseen(&self) -> bool {
        self.silent.opendir
    }

    /// Notes that a `handle` of file `id` was closed.
    pub(super) fn closed(&self, id: EntryId, handle: FileHandle, serving: &Serving) {
        match (handle, &self.passthrough) {
            (PASSTHROUGH, Some(passthrough)) => {
                passthrough.close(id);
                serving.closed_passthrough();
            }
            (CACHED | DIRECT, _) => serving.closed(),
            _ => {}
        }
    }
}

impl Way {
    /// Answers that file `id` of `len` bytes is opened this way, and counts it.
    pub(super) fn answer(self, id: EntryId, len: u64, serving: &Serving, reply: ReplyOpen) {
        let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        match self {
            Way::Passthrough(backing) => {
                serving.opened_passthrough(id, len);
                // No KEEP_CACHE, which the kernel refuses here: it keeps no pages of ours.
                reply.opened_passthrough(PASSTHROUGH, FopenFlags::FOPEN_NOFLUSH, &backing);
            }
            Way::Direct(flags) => {
                serving.opened();
                reply.opened(DIRECT, keep | flags);
            }
            Way::Cached => {
                serving.opened();
                reply.opened(CACHED, keep);
            }
            Way::Unseen => {
                serving.opens_are_unseen();
                reply.error(Errno::ENOSYS);
            }
        }
    }
}

/// Answers that a directory is opened, whose list may be kept.
pub(super) fn opened_directory(reply: ReplyOpen) {
    let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
    reply.opened(CACHED, flags);
}

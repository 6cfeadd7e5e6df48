//! How files are opened: who reads their bytes, and through which page cache.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::catalog::Extents;
use crate::error::Result;
use crate::fast_paths::FastPath;
use crate::fuse::options::MountOptions;
use crate::fuse::server::attributes::{Inode, id, inode, native_inode};
use crate::fuse::server::kernel::{Capability, Kernel};
use crate::fuse::server::passthrough::{Instead, Passthrough, local_source};
use crate::fuse::server::persisted::{Persisted, Process};
use crate::stats::Serving;
use crate::view::{EntryId, View};

/// What the kernel is told to know an open file by. A number says how the file was opened; the inode
/// says which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuse) struct Handle(pub(in crate::fuse) u64);

impl Handle {
    const KINDS: u64 = 8;
    /// A file that is read through the page cache, from us. Also one that the kernel opened by itself.
    pub(super) const CACHED: Handle = Handle(0);
    /// A file that the kernel reads from its source.
    pub(super) const PASSTHROUGH: Handle = Handle(1);
    /// A file that is read past the page cache, from us; its mappings go through the page cache.
    pub(super) const DIRECT: Handle = Handle(2);
    /// A file that is not of the view.
    pub(super) const OWN: Handle = Handle(3);

    /// The same, opened by `process`.
    pub(in crate::fuse) fn by(self, process: Process) -> Self {
        Handle(self.0 + Self::KINDS * u64::from(process))
    }

    /// How the file was opened.
    pub(super) fn kind(self) -> Self {
        Handle(self.0 % Self::KINDS)
    }

    /// Who opened it.
    pub(super) fn process(self) -> Process {
        (self.0 / Self::KINDS) as Process
    }
}

/// How a file was opened. `Backing` is what the kernel knows a source by.
#[derive(Debug)]
pub(in crate::fuse) enum Opened<Backing> {
    /// The kernel reads it from its source.
    Passthrough(Arc<Backing>),
    /// It is read past the page cache, except by mappings. Where the program has not asked for that by
    /// `O_DIRECT`, it is `forced`.
    Direct { forced: bool },
    /// It is read through the page cache.
    Cached,
    /// It is not of the view.
    Own,
}

impl<Backing> Opened<Backing> {
    /// What the kernel is told to know the open file by.
    pub(in crate::fuse) fn handle(&self) -> Handle {
        match self {
            Opened::Passthrough(_) => Handle::PASSTHROUGH,
            Opened::Direct { .. } => Handle::DIRECT,
            Opened::Cached => Handle::CACHED,
            Opened::Own => Handle::OWN,
        }
    }
}

/// Why a mount with [`MountOptions::direct_io`] fails.
const NO_DIRECT_IO: &str = "with direct I/O, programs could not map its files: that needs Linux \
     6.6 or later; mount without it, and open files with O_DIRECT instead";

/// The ways in which the files of a mount are opened.
#[derive(Debug)]
pub(super) struct Opening<Backing> {
    /// `None` if it is not wanted.
    passthrough: Option<Passthrough<Backing>>,
    /// Whether files are opened to be read past the page cache.
    direct_io: bool,
    /// Whether the kernel opens files by itself once it was told so.
    silent_open: bool,
    /// Whether it opens directories by itself once it was told so, and keeps their lists.
    pub(super) silent_opendir: bool,
}

impl<Backing> Opening<Backing> {
    pub(super) fn new(options: &MountOptions) -> Self {
        Opening {
            passthrough: options.passthrough.then(Passthrough::default),
            direct_io: options.direct_io,
            silent_open: false,
            silent_opendir: false,
        }
    }

    /// Finds out what the kernel can do.
    ///
    /// # Errors
    /// If it cannot read past the page cache, and that is wanted.
    pub(super) fn negotiate(
        &mut self,
        view: &View,
        persist: Option<&Path>,
        kernel: &mut impl Kernel,
    ) -> io::Result<()> {
        if self.direct_io && !kernel.enable(Capability::DirectMappings) {
            return Err(io::Error::other(NO_DIRECT_IO));
        }
        if let Some(passthrough) = &mut self.passthrough {
            passthrough.request(view, persist, kernel);
        }
        if FastPath::SilentOpen.is_enabled() {
            self.silent_open = kernel.offers(Capability::SilentOpen);
            self.silent_opendir = kernel.offers(Capability::SilentOpendir);
        }
        Ok(())
    }

    /// Opens file `id`, which holds `content`, with `flags`, and counts that. `register` has the
    /// kernel read from a source. `None`: from now on, the kernel opens files by itself and keeps
    /// their pages.
    ///
    /// # Errors
    /// If it is all of a source that is not the file that was planned.
    pub(super) fn open(
        &self,
        id: EntryId,
        content: &Extents,
        flags: OFlags,
        persisted: Option<&Persisted>,
        register: impl FnOnce(&File) -> io::Result<Backing>,
        serving: &Serving,
    ) -> Result<Option<Opened<Backing>>> {
        let passthrough = self.passthrough.as_ref();
        if let (Some(passthrough), Some(source)) = (passthrough, local_source(content))
            && let Some(backing) = passthrough.open(inode(id), source, Instead::Source, register)?
        {
            serving.opened_passthrough(id, content.len());
            return Ok(Some(Opened::Passthrough(backing)));
        }
        if let Some(persisted) = persisted {
            persisted.opened(id);
        }
        let must_be_seen = || {
            self.direct_io
                || persisted.is_some()
                || passthrough.is_some_and(Passthrough::needs_opens)
        };
        if self.silent_open && !must_be_seen() {
            serving.opens_are_unseen();
            return Ok(None);
        }
        serving.opened();
        Ok(Some(if self.direct_io {
            // Of one large read with O_DIRECT, the kernel asks for several pieces at once; forced, it
            // would ask for one after the other.
            let forced = !flags.contains(OFlags::DIRECT);
            Opened::Direct { forced }
        } else {
            Opened::Cached
        }))
    }

    /// Opens file `id` of `len` bytes, to be read by the kernel from what is `persisted`. `None` if that
    /// cannot be done any more.
    pub(super) fn open_native(
        &self,
        id: EntryId,
        len: u64,
        persisted: &Persisted,
        register: impl FnOnce(&File) -> io::Result<Backing>,
        serving: &Serving,
    ) -> Option<Opened<Backing>> {
        let passthrough = self.passthrough.as_ref()?;
        let file = persisted.file(id)?;
        match passthrough.open(native_inode(id), &file, Instead::Persisted, register) {
            Ok(Some(backing)) => {
                serving.opened_passthrough(id, len);
                Some(Opened::Passthrough(backing))
            }
            Ok(None) => {
                persisted.set_native(passthrough.takes_persisted());
                None
            }
            Err(error) => {
                persisted.lost(id, &error);
                None
            }
        }
    }

    /// Notes that a `handle` of `inode` was closed.
    pub(super) fn closed(
        &self,
        inode: Inode,
        handle: Handle,
        persisted: Option<&Persisted>,
        serving: &Serving,
    ) {
        match (handle.kind(), &self.passthrough) {
            (Handle::PASSTHROUGH, Some(passthrough)) => {
                passthrough.close(inode);
                serving.closed_passthrough();
            }
            (Handle::CACHED | Handle::DIRECT, _) => {
                serving.closed();
                if let Some(persisted) = persisted {
                    persisted.closed(id(inode));
                }
            }
            _ => {}
        }
    }

    /// Whether the kernel reads whole files of sources by itself.
    pub(super) fn passes_through(&self) -> bool {
        let passthrough = self.passthrough.as_ref();
        passthrough.is_some_and(Passthrough::is_enabled)
    }

    /// Whether files are handed to the kernel once they are written to a directory.
    pub(super) fn takes_persisted(&self) -> bool {
        let passthrough = self.passthrough.as_ref();
        passthrough.is_some_and(Passthrough::takes_persisted)
    }
}

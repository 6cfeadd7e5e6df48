//! What a mount answers to the requests of the kernel. It knows inodes, offsets and flags, and no FUSE:
//! `filesystem.rs` converts. So all of it can be tested without a mount.

mod attributes;
mod kernel;
mod opening;
mod own_files;
mod passthrough;
mod persisted;
mod provenance;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, OFlags};
use rustix::io::Errno;

use crate::error::{Code, Error, Spelling};
use crate::fuse::figures::Figures;
use crate::fuse::options::MountOptions;
use crate::read::{Ahead, ReadAhead};
use crate::shown::Show;
use crate::stats::{Origin, Served};
use crate::view::{EntryId, View};

pub(super) use attributes::{Found, Inode, Kind, Stat, TTL, inode};
pub(super) use kernel::{Capability, Kernel};
pub(super) use opening::{Handle, Opened};
pub(super) use own_files::{PLAN, PLAN_INODE, STATS};
pub(super) use passthrough::{local_source, obstacle};
pub(super) use persisted::{Persisted, Wait};

pub use passthrough::PassthroughOutlook;
pub use provenance::PROVENANCE_ATTRIBUTE;

use attributes::{id, is_native, kind, native_inode, stat};
use opening::Opening;
use own_files::OwnFiles;
use provenance::Provenance;

thread_local! {
    /// Where bytes are put together that do not lie in one piece.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers to requests about a view. `Backing` is what the kernel knows a source by that it reads by
/// itself.
pub(super) struct Server<Backing> {
    figures: Arc<Figures>,
    own: OwnFiles,
    /// Bytes of all files.
    bytes: u64,
    opening: Opening<Backing>,
    /// `None` if the view is not written to a directory.
    persisted: Option<Arc<Persisted>>,
    /// Bytes that the kernel reads ahead.
    read_ahead: u64,
    /// `None` if it is not wanted.
    ahead: Option<ReadAhead>,
    /// What to do ahead of readers that come through the page cache.
    ahead_of_cache: Ahead,
    /// `None` if files have no such attribute.
    provenance: Option<Provenance>,
    /// How the log writes settings.
    spelling: Spelling,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub(super) name: &'a OsStr,
    pub(super) inode: Inode,
    pub(super) kind: Kind,
}

/// An extended attribute, or how many bytes it has where nothing else was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Xattr {
    Size(u32),
    Value(Arc<[u8]>),
}

type Answer<T> = Result<T, Errno>;

impl<Backing> Server<Backing> {
    pub(super) fn new(
        figures: Arc<Figures>,
        options: &MountOptions,
        ahead: Option<ReadAhead>,
        ahead_of_cache: Ahead,
    ) -> Self {
        let view = figures.reader.view();
        let bytes = (0..view.len()).filter_map(|id| Some(view.file(id)?.len()));
        Server {
            bytes: bytes.sum(),
            own: OwnFiles::new(options.plan.clone(), options.recipe.as_deref(), view),
            opening: Opening::new(options),
            persisted: figures.persisted(),
            read_ahead: options.read_ahead,
            figures,
            ahead,
            ahead_of_cache,
            provenance: options.provenance.clone().map(Provenance::new),
            spelling: options.spelling,
        }
    }

    /// Finds out what the kernel can do, before its first request.
    ///
    /// # Errors
    /// If it lacks something that is wanted.
    pub(super) fn negotiate(&mut self, kernel: &mut impl Kernel) -> io::Result<()> {
        let persist = self.persisted.as_deref().map(Persisted::directory);
        let view = self.figures.reader.view();
        self.opening.negotiate(view, persist, kernel)?;
        if let Some(persisted) = &self.persisted {
            persisted.set_native(self.opening.takes_persisted());
        }
        if let Some(prefetch) = &self.figures.prefetch {
            prefetch.set_passthrough(self.opening.passes_through());
        }
        Ok(())
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files and directories of the view.
    pub(super) fn entries(&self) -> u64 {
        self.view().len() as u64
    }

    /// What is called `name` in `parent`.
    pub(super) fn lookup(&self, parent: Inode, name: &OsStr) -> Answer<Option<Found>> {
        self.guard(parent, || {
            let own = self.own.lookup(parent, name, &self.figures);
            Ok(own.or_else(|| {
                let id = self.view().lookup(id(parent), name)?;
                self.find_entry(id)
            }))
        })
    }

    /// The kernel forgets `inode`, which a lookup has told it of.
    pub(super) fn forget(&self, inode: Inode) {
        self.own.forget(inode);
    }

    pub(super) fn getattr(&self, inode: Inode) -> Answer<Found> {
        self.guard(inode, || self.find(inode).ok_or(Errno::NOENT))
    }

    /// Whether a reader of `inode` may do what `mask` asks for.
    pub(super) fn access(&self, inode: Inode, mask: Access) -> Answer<()> {
        const ANY_EXECUTE: u16 = 0o111;
        match self.getattr(inode)?.stat.mode {
            _ if mask.contains(Access::WRITE_OK) => Err(Errno::ROFS),
            mode if mask.contains(Access::EXEC_OK) && mode & ANY_EXECUTE == 0 => Err(Errno::ACCESS),
            _ => Ok(()),
        }
    }

    /// How an opening of `inode` by `thread` waits before it is answered; `None` if it does not.
    pub(super) fn wait_to_open(&self, inode: Inode, thread: u32) -> Option<Wait> {
        let persisted = self.persisted.as_ref()?;
        let content = self.view().file(id(inode))?;
        if OwnFiles::has(inode) || !self.opening.takes_persisted() {
            return None;
        }
        persisted.wait(id(inode), content, persisted.process_of(thread))
    }

    /// The process of `thread`, where its habits matter.
    pub(super) fn process_of(&self, thread: u32) -> u32 {
        let persisted = self.persisted.as_ref();
        persisted.map_or(0, |persisted| persisted.process_of(thread))
    }

    /// Opens the file `inode`. `register` makes the kernel read from a source. `ENOSYS` says that the
    /// kernel opens files by itself from now on, and keeps their pages; `ESTALE` that it is to look the
    /// name up again, and open what it finds then.
    pub(super) fn open(
        &self,
        inode: Inode,
        flags: OFlags,
        register: impl FnOnce(&File) -> io::Result<Backing>,
    ) -> Answer<Opened<Backing>> {
        self.guard(inode, || {
            let mode = flags.intersection(OFlags::ACCMODE);
            if mode != OFlags::RDONLY || flags.contains(OFlags::TRUNC) {
                return Err(Errno::ROFS);
            }
            if self.own.has_file(inode) {
                return Ok(Opened::Own);
            }
            let serving = &self.figures.serving;
            serving.open_requested();
            self.find(inode).ok_or(Errno::NOENT)?;
            let id = id(inode);
            let content = self.view().file(id).ok_or(Errno::ISDIR)?;
            let persisted = self.persisted.as_deref();
            if let Some(persisted) = persisted.filter(|_| is_native(inode)) {
                let (opening, len) = (&self.opening, content.len());
                let opened = opening.open_native(id, len, persisted, register, serving);
                return opened.ok_or(Errno::STALE);
            }
            if persisted.is_some_and(|persisted| persisted.is_native(id, content)) {
                return Err(Errno::STALE);
            }
            let opened = self
                .opening
                .open(id, content, flags, persisted, register, serving);
            let opened = opened.map_err(|error| self.failed(inode, "cannot open it", &error))?;
            opened.ok_or(Errno::NOSYS)
        })
    }

    /// The last user of a file that was opened as `handle` has closed it.
    pub(super) fn release(&self, inode: Inode, handle: Handle) {
        let (persisted, serving) = (self.persisted.as_deref(), &self.figures.serving);
        self.opening.closed(inode, handle, persisted, serving);
    }

    /// Whether the answer to a read may have to wait for another machine.
    pub(super) fn waits_to_read(&self, inode: Inode, offset: u64, size: u32) -> bool {
        let reader = &self.figures.reader;
        let range = offset..offset.saturating_add(size.into());
        reader.reads_remote() && !OwnFiles::has(inode) && !reader.is_near(id(inode), range)
    }

    /// Lends `size` bytes of `inode` from `offset` to `send`, fewer at the end of the file. `send` is
    /// called once, or not at all where there is an error.
    pub(super) fn read(
        &self,
        inode: Inode,
        handle: Handle,
        offset: u64,
        size: u32,
        flags: OFlags,
        send: impl FnOnce(&[u8]),
    ) -> Answer<()> {
        self.guard(inode, || {
            if OwnFiles::has(inode) {
                let text = self.own.text(inode).ok_or(Errno::NOENT)?;
                let end = text.len();
                let from = end.min(usize::try_from(offset).unwrap_or(usize::MAX));
                send(&text[from..end.min(from.saturating_add(size as usize))]);
                return Ok(());
            }
            let id = id(inode);
            let _reading = self.persisted.as_deref().map(Persisted::reading);
            let serving = &self.figures.serving;
            let send = |bytes: &[u8]| {
                serving.read(id, bytes.len() as u64);
                send(bytes);
            };
            let result = SCRATCH.with_borrow_mut(|scratch| {
                if self.read_persisted(id, handle, offset, size, scratch) {
                    send(scratch);
                    return Ok(());
                }
                if let Some(ahead) = &self.ahead {
                    // The kernel reads nothing ahead of who reads past its page cache.
                    let what = match (handle.kind(), flags.contains(OFlags::DIRECT)) {
                        (Handle::DIRECT, false) => Ahead::Everything,
                        (_, false) => self.ahead_of_cache,
                        (_, true) => Ahead::Tiles,
                    };
                    ahead.note(id, offset..offset.saturating_add(size.into()), what);
                }
                if let Some(prefetch) = &self.figures.prefetch {
                    let range = offset..offset.saturating_add(size.into());
                    prefetch.note_read(id, range, 2 * self.read_ahead);
                }
                let reader = &self.figures.reader;
                reader.read_with(id, offset, size as usize, scratch, send)
            });
            result.map_err(|error| {
                let what = format!("cannot read {size} bytes at offset {offset}");
                self.failed(inode, &what, &error)
            })
        })
    }

    /// Reads from the directory that the view is written to, if file `id` is complete there.
    fn read_persisted(
        &self,
        id: EntryId,
        handle: Handle,
        offset: u64,
        size: u32,
        into: &mut Vec<u8>,
    ) -> bool {
        let Some(persisted) = &self.persisted else {
            return false;
        };
        if let Some(content) = self.view().file(id) {
            persisted.note_read(handle.process(), content, offset, self.read_ahead);
        }
        let is_read = persisted.read(id, offset, size as usize, into);
        if is_read {
            let served = Served::new(Origin::Persisted, into.len() as u64);
            self.figures.reader.stats().served(served);
        }
        is_read
    }

    /// The extended attribute `name` of `inode`, for a buffer of `size` bytes; 0 asks for its size.
    pub(super) fn getxattr(&self, inode: Inode, name: &OsStr, size: u32) -> Answer<Xattr> {
        // ENOSYS would be an answer to all that is ever asked. Of EOPNOTSUPP programs like ls know
        // that it holds for the whole filesystem.
        let provenance = self.provenance.as_ref().ok_or(Errno::NOSYS)?;
        if name != PROVENANCE_ATTRIBUTE {
            return Err(Errno::OPNOTSUPP);
        }
        self.guard(inode, || match provenance.value(id(inode)) {
            None => Err(Errno::NODATA),
            Some(value) if size == 0 => Ok(Xattr::Size(value.len() as u32)),
            Some(value) if value.len() > size as usize => Err(Errno::RANGE),
            Some(value) => Ok(Xattr::Value(value)),
        })
    }

    /// Opens the directory `inode`. `ENOSYS` says that the kernel opens directories by itself from
    /// now on, and keeps their lists.
    pub(super) fn opendir(&self, inode: Inode) -> Answer<Handle> {
        match self.getattr(inode)?.stat.kind {
            Kind::File => Err(Errno::NOTDIR),
            Kind::Directory if self.opening.silent_opendir => Err(Errno::NOSYS),
            Kind::Directory => Ok(Handle::CACHED),
        }
    }

    /// Calls `add` with the names in `directory` from position `from`, each with the position after
    /// it, until `add` returns true: it has no room for this one.
    pub(super) fn readdir(
        &self,
        directory: Inode,
        from: u64,
        mut add: impl FnMut(u64, Named<'_>) -> bool,
    ) -> Answer<()> {
        self.guard(directory, || {
            let names = (1..).zip(self.names(directory)?).skip(from as usize);
            for (next, named) in names {
                if add(next, named) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The same, with what the names stand for: each that was added counts as a lookup.
    pub(super) fn readdirplus(
        &self,
        directory: Inode,
        from: u64,
        mut add: impl FnMut(u64, &OsStr, &Found) -> bool,
    ) -> Answer<()> {
        self.guard(directory, || {
            let names = (1..).zip(self.names(directory)?).skip(from as usize);
            for (next, Named { name, inode, kind }) in names {
                let found = match (OwnFiles::has(directory), kind) {
                    (false, _) => self.find_entry(id(inode)),
                    (true, Kind::File) => self.own.lookup(directory, name, &self.figures),
                    // "." and "..", of which the kernel takes the names alone.
                    (true, Kind::Directory) => self.find(directory),
                };
                let Some(found) = found else {
                    continue;
                };
                if add(next, name, &found) {
                    self.forget(found.stat.inode);
                    break;
                }
            }
            Ok(())
        })
    }

    /// All names in `directory`.
    fn names(&self, directory: Inode) -> Answer<Box<dyn Iterator<Item = Named<'_>> + '_>> {
        if OwnFiles::has(directory) {
            let names = self.own.names(directory).ok_or(Errno::NOTDIR)?;
            return Ok(Box::new(names.map(|(name, inode, kind)| Named {
                name: OsStr::new(name),
                inode,
                kind,
            })));
        }
        let (view, at) = (self.view(), id(directory));
        let entry = view.get(at).ok_or(Errno::NOENT)?;
        let children = view.children(at).ok_or(Errno::NOTDIR)?;
        let dots = [(at, "."), (entry.parent, "..")];
        let dots = dots.map(|(id, name)| Named {
            name: OsStr::new(name),
            inode: inode(id),
            kind: Kind::Directory,
        });
        let children = children.iter().filter_map(|&child| {
            let entry = view.get(child)?;
            Some(Named {
                name: &entry.name,
                inode: inode(child),
                kind: kind(entry),
            })
        });
        Ok(Box::new(dots.into_iter().chain(children)))
    }

    fn view(&self) -> &View {
        self.figures.reader.view()
    }

    /// What the name of entry `id` stands for now.
    fn find_entry(&self, id: EntryId) -> Option<Found> {
        let mut found = self.find(inode(id))?;
        if let Some(persisted) = &self.persisted
            && let Some(content) = self.view().file(id)
            && persisted.is_native(id, content)
        {
            // Attributes that are asked for have the same inode as ever.
            found.stat.inode = native_inode(id);
            found.ttl = Duration::ZERO;
        }
        Some(found)
    }

    fn find(&self, inode: Inode) -> Option<Found> {
        if OwnFiles::has(inode) {
            return self.own.find(inode);
        }
        let stat = stat(self.view(), id(inode))?;
        Some(Found { stat, ttl: TTL })
    }

    /// Runs the answer to a request about `inode`. If it panics, that is EIO, and the thread lives on.
    fn guard<T>(&self, inode: Inode, answer: impl FnOnce() -> Answer<T>) -> Answer<T> {
        catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
            self.figures.serving.error();
            log::error!("{}: panic in a request for it", self.shown(inode));
            Err(Errno::IO)
        })
    }

    /// Counts and logs an error of a request about `inode`.
    fn failed(&self, inode: Inode, what: &str, error: &Error) -> Errno {
        let why = error.logged(self.spelling);
        log::error!("{}: {what}: {why}", self.shown(inode));
        self.figures.serving.error();
        errno(error)
    }

    /// The path of `inode` in the view, for the log.
    fn shown(&self, inode: Inode) -> String {
        match self.view().get(id(inode)) {
            Some(_) => format!("/{}", self.view().path(id(inode)).shown()),
            None => format!("inode {inode}"),
        }
    }
}

/// The errno a reader sees; details go to the log.
fn errno(error: &Error) -> Errno {
    match error.code() {
        Code::NotAFile => Errno::INVAL,
        // Without memory too: answered ENOMEM for a page that is read through a mapping, the kernel
        // would ask for ever.
        _ => Errno::IO,
    }
}
